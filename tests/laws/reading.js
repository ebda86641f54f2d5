// What keeps a reader from reading: names, headings, references, contrast. The value is {problems, least, texts}.
(() => {
  const problems = [], seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length > 0;
  const say = (what, e) => problems.push(`${what}: <${e.tagName.toLowerCase()} class="${e.getAttribute("class") ?? ""}" id="${e.id}"> ${(e.textContent || "").trim().slice(0, 40)}`);
  const all = (q) => [...document.querySelectorAll(q)].filter(seen);
  if (!document.documentElement.lang) problems.push("no lang");
  if (!document.title.trim()) problems.push("no title");
  if (all("h1").length !== 1) problems.push(`${all("h1").length} h1`);
  if (all("main").length !== 1) problems.push(`${all("main").length} main`);
  let level = 0;
  for (const head of all("h1, h2, h3, h4, h5, h6")) {
    const now = Number(head.tagName[1]);
    if (now > level + 1) say(`h${now} after h${level}`, head);
    level = now;
  }
  const pointed = (e) => (e.getAttribute("aria-labelledby") || "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("").trim();
  const labelled = (e) => (e.labels?.length ? [...e.labels].map((l) => l.textContent).join("").trim() : "");
  const named = (e) => pointed(e) || (e.getAttribute("aria-label") || "").trim() || labelled(e) || (e.textContent || e.getAttribute("title") || "").trim();
  for (const e of all('a[href], button, input, select, textarea, iframe, canvas, [role="img"], [role="button"], [role="listbox"], [role="region"], [role="group"], nav, summary'))
    if (!e.closest("[aria-hidden='true']") && !named(e)) say("no name", e);
  for (const e of all("img")) if (!e.hasAttribute("alt")) say("no alt", e);
  const marks = all("nav, aside, section[aria-labelledby], section[aria-label], [role='region']").map(named);
  for (const mark of marks.filter((mark, i) => mark && marks.indexOf(mark) !== i)) problems.push(`two landmarks called ${mark.slice(0, 40)}`);
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids.filter((id, i) => ids.indexOf(id) !== i)) problems.push(`two of id ${id}`);
  for (const e of document.querySelectorAll("[aria-labelledby], [aria-controls], [aria-describedby], [aria-activedescendant]"))
    for (const name of ["aria-labelledby", "aria-controls", "aria-describedby", "aria-activedescendant"])
      for (const id of (e.getAttribute(name) || "").split(" ").filter(Boolean)) if (!document.getElementById(id)) say(`${name} of nothing (${id})`, e);
  for (const e of all("table")) if (e.rows.length > 1 && !e.querySelector("th")) say("a table without headings", e);

  const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    const found = /^color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)(?: \/ ([\d.e-]+))?\)$/.exec(colour);
    if (found) return [255 * found[1], 255 * found[2], 255 * found[3], Number(found[4] ?? 1)];
    const plain = /^rgba?\(([\d.]+), ([\d.]+), ([\d.]+)(?:, ([\d.]+))?\)$/.exec(colour);
    if (plain) return [Number(plain[1]), Number(plain[2]), Number(plain[3]), Number(plain[4] ?? 1)];
    pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((i) => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const behind = (e) => {
    const layers = [];
    if (e.namespaceURI.endsWith("svg")) {
      const box = e.parentElement.querySelector(":scope > rect");
      if (box && box !== e) {
        const s = getComputedStyle(box), fill = rgba(s.fill);
        fill[3] *= Number(s.fillOpacity) * Number(s.opacity);
        layers.push(fill);
      }
    }
    for (let at = e; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor));
    return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (c) => { const f = c.slice(0, 3).map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * f[0] + 0.7152 * f[1] + 0.0722 * f[2]; };
  let least = 99, texts = 0;
  for (const e of document.querySelectorAll("body *")) {
    if (e.closest("script, style, noscript, title, option, [aria-hidden='true'], .modebar, :disabled") || !seen(e)) continue;
    if (![...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(e), drawn = e.namespaceURI.endsWith("svg");
    const ink = rgba(drawn ? style.fill : style.color), ground = behind(e);
    for (let at = e; at; at = at.parentElement) ink[3] *= Number(getComputedStyle(at).opacity);
    const [a, b] = [light(over(ink, ground)), light(ground)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    texts++;
    least = Math.min(least, ratio);
    if (ratio < (large ? 3 : 4.5)) say(`contrast ${ratio.toFixed(2)}`, e);
  }
  if (texts < 5) problems.push(`only ${texts} texts`);
  return { problems: [...new Set(problems)], least, texts };
})()
