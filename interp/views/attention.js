// Attention patterns: every head small, the chosen one large, and the tokens tinted by what the chosen token attends
// to, or what attends to it. Texts reach the page as text only.
(() => {
  const root = document.documentElement, byId = (id) => document.getElementById(id);
  const MANY = 256; // heads; behind that one layer is shown at a time
  root.classList.add("js");

  const start = async () => {
    const data = await Page.unpack(byId("data").textContent), { prompts, layers, heads, causal, spaced } = data.extra;
    const all = heads.reduce((a, b) => a + b, 0) <= MANY;
    let prompt = 0, layer = 0, head = 0, token = 0, pinned = false, from = true, scaled = false;

    const words = () => prompts[prompt];
    const square = (l = layer, h = head) => {
      const t = words().length;
      return data[`p${prompt}l${l}`].subarray(h * t * t, (h + 1) * t * t);
    };
    // what counts as full colour: 1, or the largest attention to any token but the first
    const reach = (values) => {
      if (!scaled) return 1;
      const t = words().length;
      let most = 0;
      for (let q = 0; q < t; q++) for (let k = t > 1 ? 1 : 0; k < t; k++) most = Math.max(most, values[q * t + k]);
      return most || 1;
    };
    const called = (l, h) => (layers[l] ? `${layers[l]}.${h}` : `${h}`);

    // -- small multiples ----------------------------------------------------------------------------------
    const grid = Page.element("div", { class: "heads" });
    const rgb = (name) => [1, 3, 5].map((i) => parseInt(Page.colour(name).slice(i, i + 2), 16));
    const small = (canvas, l, h) => {
      const t = words().length, values = square(l, h), most = reach(values), [r, g, b] = rgb("--plus");
      canvas.width = t; canvas.height = t;
      const image = new ImageData(t, t);
      for (let i = 0; i < t * t; i++) image.data.set([r, g, b, Math.round(255 * Math.min(1, values[i] / most))], 4 * i);
      canvas.getContext("2d").putImageData(image, 0, 0);
    };
    const buttons = [];
    const fill = () => {
      buttons.length = 0;
      grid.replaceChildren(...layers.map((name, l) => {
        if (!all && l !== layer) return null;
        const row = Page.element("div", { class: "layer" });
        if (name) row.append(Page.element("span", {}, /^\d+$/.test(name) ? `layer ${name}` : name));
        for (let h = 0; h < heads[l]; h++) {
          const canvas = Page.element("canvas", { "aria-hidden": "true" }), button = Page.element("button", { type: "button", class: "head", "aria-label": `head ${called(l, h)}`, "data-layer": l, "data-head": h }, canvas, Page.element("b", {}, String(h)));
          button.addEventListener("click", () => choose(l, h));
          button.addEventListener("keydown", (event) => walk(event, button));
          buttons.push(button);
          row.append(button);
        }
        return row;
      }).filter(Boolean));
    };
    const walk = (event, button) => {
      const i = buttons.indexOf(button), here = Number(button.dataset.layer), at = Number(button.dataset.head);
      const other = (l) => buttons.find((one) => Number(one.dataset.layer) === l && Number(one.dataset.head) === Math.min(at, heads[l] - 1));
      const next = { ArrowRight: () => buttons[i + 1], ArrowLeft: () => buttons[i - 1], ArrowDown: () => other(here + 1), ArrowUp: () => other(here - 1) }[event.key];
      if (!next) return;
      event.preventDefault();
      const found = next();
      if (found) { found.focus(); choose(Number(found.dataset.layer), Number(found.dataset.head)); }
    };
    const thumbnails = () => buttons.forEach((button) => {
      const l = Number(button.dataset.layer), h = Number(button.dataset.head);
      small(button.firstChild, l, h);
      button.setAttribute("aria-pressed", String(l === layer && h === head));
      button.tabIndex = l === layer && h === head ? 0 : -1;
    });

    // -- the chosen head ----------------------------------------------------------------------------------
    const left = Page.element("div", { class: "names left" }), under = Page.element("div", { class: "names under" });
    const canvas = Page.element("canvas", { role: "img" });
    const map = Page.element("div", { class: "map" }, left, canvas, Page.element("span"), under);
    const heading = Page.element("h2"), line = Page.element("div");
    const cellSize = () => Math.max(2, Math.min(22, Math.floor(420 / words().length)));
    const large = () => {
      const t = words().length, cell = cellSize(), values = square(), most = reach(values), sharp = window.devicePixelRatio || 1;
      canvas.width = t * cell * sharp; canvas.height = t * cell * sharp;
      canvas.style.width = `${t * cell}px`; canvas.style.height = `${t * cell}px`;
      canvas.setAttribute("aria-label", `Attention of head ${called(layer, head)}: rows are queries, columns keys`);
      const pen = canvas.getContext("2d"), gap = cell > 5 ? 1 : 0;
      pen.scale(sharp, sharp);
      for (let q = 0; q < t; q++) {
        for (let k = 0; k < t; k++) {
          if (causal && k > q) continue;
          pen.globalAlpha = 0.07; pen.fillStyle = Page.colour("--soft");
          if (gap) pen.fillRect(k * cell, q * cell, cell - gap, cell - gap);
          pen.globalAlpha = Math.min(1, values[q * t + k] / most); pen.fillStyle = Page.colour("--plus");
          pen.fillRect(k * cell, q * cell, cell - gap, cell - gap);
        }
      }
      pen.globalAlpha = 1; pen.strokeStyle = Page.colour("--minus"); pen.lineWidth = 1.5;
      if (from) pen.strokeRect(0.75, token * cell + 0.25, (causal ? token + 1 : t) * cell - 1.5, cell - 1.5);
      else pen.strokeRect(token * cell + 0.25, (causal ? token : 0) * cell + 0.75, cell - 1.5, (causal ? t - token : t) * cell - 1.5);
      const named = cell >= 8;
      left.hidden = under.hidden = !named;
      if (named) for (const [box, side] of [[left, "height"], [under, "width"]]) box.replaceChildren(...words().map((word, i) => {
        const name = Page.element("span", { class: i === token ? "at" : "" }, word.trim() || word || "\u2205");
        name.style[side] = `${cell}px`; name.style.lineHeight = `${cell}px`;
        return name;
      }));
    };
    const at = (event) => {
      const box = canvas.getBoundingClientRect(), t = words().length;
      const k = Math.floor(((event.clientX - box.left) / box.width) * t), q = Math.floor(((event.clientY - box.top) / box.height) * t);
      return k >= 0 && q >= 0 && k < t && q < t && !(causal && k > q) ? [q, k] : null;
    };
    canvas.addEventListener("mousemove", (event) => {
      const found = at(event);
      if (!found) return;
      const [q, k] = found;
      if (!pinned) look(from ? q : k);
      byId("said").replaceChildren(word(q), " attends to ", word(k), `: ${Page.number(square()[q * words().length + k], 4)}`);
    });
    canvas.addEventListener("click", (event) => { const found = at(event); if (found) pin(found[from ? 0 : 1]); });

    // -- the tokens ---------------------------------------------------------------------------------------
    const word = (i) => Page.element("b", {}, words()[i] || "\u2205");
    const weight = (i) => square()[from ? token * words().length + i : i * words().length + token];
    let chips = null;
    const write = () => {
      chips = Page.chips(words(), spaced, { look: (i) => { if (!pinned) look(i); }, pick: (i) => pin(i), drop: () => { pinned = false; tint(); }, turn: (step) => step1(step) });
      line.replaceChildren(chips.line);
    };
    const step1 = (step) => choose(layer, (head + step + heads[layer]) % heads[layer]);
    const ranked = () => [...words().keys()].filter((i) => !causal || (from ? i <= token : i >= token)).sort((a, b) => weight(b) - weight(a) || a - b);
    const legend = Page.element("span", { class: "legend", role: "img" });
    const tint = () => {
      const most = reach(square());
      Page.legend(legend, 0, most);
      chips.all.forEach((chip, i) => {
        const w = causal && (from ? i > token : i < token) ? 0 : weight(i);
        chip.style.background = w ? Page.tint(w / most) : "";
        chip.classList.toggle("at", i === token);
        chip.setAttribute("aria-pressed", String(pinned && i === token));
        chip.title = Page.number(w, 4);
      });
      heading.replaceChildren(`Head ${called(layer, head)}: ${from ? "where this token attends" : "what attends to this token"}${pinned ? " (held; Esc lets go)" : ""}`);
      const top = ranked().slice(0, 5), parts = [word(token), ` (position ${token}) ${from ? "attends to" : "is attended by"} `];
      top.forEach((i, rank) => parts.push(...(rank ? [", "] : []), word(i), ` ${Page.number(weight(i), 3)}`));
      byId("said").replaceChildren(...parts);
      if (byId("exact").open) table();
    };
    const cells = (tag, texts) => Page.element("tr", {}, ...texts.map((text, i) => Page.element(tag, i === 2 ? { class: "num" } : i === 1 ? { class: "w" } : {}, text)));
    const table = () => {
      byId("table").tHead.replaceChildren(cells("th", ["position", from ? `token that ${token} attends to` : `token that attends to ${token}`, `attention, head ${called(layer, head)}`]));
      byId("table").tBodies[0].replaceChildren(...ranked().map((i) => cells("td", [String(i), words()[i], Page.number(weight(i), 7)])));
    };
    byId("exact").addEventListener("toggle", () => { if (byId("exact").open) table(); });

    const look = (i) => { if (i === token) return; token = i; large(); tint(); };
    const pin = (i) => { pinned = !(pinned && i === token); token = i; large(); tint(); };
    const choose = (l, h) => { const other = l !== layer; layer = l; head = h; if (!all && other) fill(); thumbnails(); large(); tint(); };
    const read = (p) => { prompt = p; token = words().length - 1; pinned = false; fill(); write(); thumbnails(); large(); tint(); };

    // -- controls -----------------------------------------------------------------------------------------
    const listed = (label, options, on) => {
      const list = Page.element("select", { "aria-label": label }, ...options.map((text, i) => Page.element("option", { value: i }, text)));
      list.addEventListener("change", () => on(Number(list.value)));
      byId("controls").append(Page.element("label", {}, `${label} `, list));
    };
    if (prompts.length > 1) listed("Prompt", prompts.map((row, i) => `${i}: ${row.join(spaced ? "" : " ").slice(0, 48)}`), read);
    if (!all) listed("Layer", layers, (l) => choose(l, Math.min(head, heads[l] - 1)));
    const way = Page.choice("Direction", ["where it attends", "what attends to it"], 0, (i) => { from = i === 0; way.set(i); large(); tint(); });
    const scale = Page.choice("Scale", ["0 to 1", "to the largest but the first token"], 0, (i) => { scaled = i === 1; scale.set(i); thumbnails(); large(); tint(); });
    byId("controls").append(way.box, scale.box, legend);

    byId("stage").append(grid, Page.element("div", { class: "large" }, map, Page.element("div", { class: "text" }, heading, line)));
    byId("view").querySelector(".text").append(byId("said"));
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { thumbnails(); large(); });
    read(0);
    root.dataset.ready = "true";
  };
  start().catch((error) => {
    root.dataset.ready = "failed";
    byId("said").textContent = `This view cannot be drawn: ${error.message}`;
  });
})();
