// Tokens tinted by one of several rows of values. Texts reach the page as text only.
(() => {
  const root = document.documentElement, byId = (id) => document.getElementById(id);
  root.classList.add("js");

  const start = async () => {
    const data = await Page.unpack(byId("data").textContent), extra = data.extra, n = extra.names.length;
    const value = (p, row, i) => data[`p${p}`][row * data[`p${p}`].width + i];
    let row = 0;

    const legend = Page.element("span", { class: "legend", role: "img" });
    const which = Page.choice("Colour by", extra.names, row, (i) => show(i));
    if (n > 1) byId("controls").append(which.box);
    byId("controls").append(legend);

    const say = (p, i) => {
      const token = Page.element("b", {}, extra.prompts[p][i] || "\u2205");
      const told = extra.names.map((name, r) => `${name} ${Page.number(value(p, r, i), 4)}`).join("; ");
      byId("said").replaceChildren(token, ` (position ${i}): ${told}`);
    };
    const lines = extra.prompts.map((words, p) => Page.chips(words, extra.spaced, { look: (i) => say(p, i), pick: (i) => say(p, i), turn: (step) => show((row + step + n) % n) }));
    byId("stage").append(...lines.map(({ line }) => Page.element("div", { class: "prompt" }, line)));

    const show = (i) => {
      row = i;
      which.set(i);
      let least = 0, most = 0;
      extra.prompts.forEach((words, p) => words.forEach((_, at) => {
        const v = value(p, row, at);
        if (Number.isFinite(v)) { least = Math.min(least, v); most = Math.max(most, v); }
      }));
      const reach = extra.limit ?? (Math.max(-least, most) || 1);
      extra.prompts.forEach((words, p) => lines[p].all.forEach((chip, at) => {
        const v = value(p, row, at);
        chip.style.background = Number.isNaN(v) || v === 0 ? "" : Page.tint(v / reach);
        chip.classList.toggle("none", Number.isNaN(v));
        chip.title = Page.number(v, 4);
        chip.setAttribute("aria-label", `${words[at]}: ${Page.number(v, 4)}`);
      }));
      Page.legend(legend, least < 0 ? -reach : 0, reach);
    };

    const table = byId("table");
    const cells = (tag, texts) => Page.element("tr", {}, ...texts.map((text, i) => Page.element(tag, i > 2 ? { class: "num" } : i === 2 ? { class: "w" } : {}, text)));
    byId("exact").addEventListener("toggle", () => {
      const rows = extra.prompts.flatMap((words, p) => words.map((word, i) => cells("td", [String(p), String(i), word, ...extra.names.map((_, r) => Page.number(value(p, r, i), 7))])));
      table.tHead.replaceChildren(cells("th", ["prompt", "position", "token", ...extra.names]));
      table.tBodies[0].replaceChildren(...rows);
    }, { once: true });

    show(0);
    byId("said").textContent = "Point at a token, or reach it with Tab and the arrow keys: its values stand here.";
    root.dataset.ready = "true";
  };
  start().catch((error) => {
    root.dataset.ready = "failed";
    byId("said").textContent = `This view cannot be drawn: ${error.message}`;
  });
})();
