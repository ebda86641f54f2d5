// The list, the map and one latent at a time. Everything is inside this file; whatever came from a model or a text
// reaches the document as text only.
(() => {
  const byId = (id) => document.getElementById(id);
  const make = (tag, name, text) => Page.element(tag, name ? { class: name } : {}, ...(text === undefined ? [] : [text]));
  const svg = (tag, attributes) => Page.element(tag, attributes);
  const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 1e-3 && Math.abs(value) < 1e5 ? String(Number(value.toPrecision(3))) : value.toExponential(1));

  const unpack = (name) => Page.unpack(byId(name).textContent);
  const row = Page.row;
  const chunks = new Map();
  const chunk = (number) => {
    if (!chunks.has(number)) {
      if (chunks.size > 24) chunks.delete(chunks.keys().next().value);
      chunks.set(number, unpack(`c${number}`));
    }
    return chunks.get(number);
  };

  let index, corpus, extra, words, n, order = [], current = -1, shown = -1;
  const word = (i) => words[i].replace(/\n/g, "\u21b5").replace(/\t/g, "\u21e5");
  const tokensOf = (i) => [...row(index.tokens, i)].filter((t) => t).map((t) => word(t - 1));
  const largest = (i) => index.span[2 * i + 1];
  const dead = (i) => index.density[i] === 0;
  const conceptOf = (i) => (index.concept && index.concept[i] ? extra.concepts[index.concept[i] - 1] : "");
  const fits = (i) => Boolean(index.auroc) && index.auroc[i] >= 191 && index.precision[i] >= 128;
  const labelOf = (i) => (extra.explanations[i] ? extra.explanations[i].text : fits(i) ? conceptOf(i) : "");

  // -- list ------------------------------------------------------------------------------------------------------
  const HEIGHT = 26;
  const KEYS = {
    index: (i) => i, density: (i) => -index.density[i], rare: (i) => (dead(i) ? 2 : index.density[i]),
    max: (i) => -Math.max(largest(i), -index.span[2 * i]), aligned: (i) => -index.aligned[i], auroc: (i) => (index.auroc && !dead(i) ? -index.auroc[i] * index.precision[i] : 0),
  };
  const SHOWN = { all: () => true, alive: (i) => !dead(i), dead, labelled: (i) => labelOf(i) !== "", tried: (i) => Boolean(extra.causal[i]) };
  let haystack = null;
  const hay = () => {
    haystack ??= Array.from({ length: n }, (_, i) => `${tokensOf(i).map((t) => t.trim()).join("\u0001")}\u0001${labelOf(i)}`.toLowerCase());
    return haystack;
  };
  const filter = () => {
    const text = byId("search").value.trim().toLowerCase(), keep = SHOWN[byId("show").value], key = KEYS[byId("sort").value];
    const number = /^#?\d+$/.test(text) ? Number(text.replace("#", "")) : -1;
    const hits = [];
    for (let i = 0; i < n; i++) if (keep(i) && (!text || i === number || hay()[i].includes(text))) hits.push(i);
    const keys = Float64Array.from({ length: n }, (_, i) => key(i));
    hits.sort((a, b) => keys[a] - keys[b] || a - b);
    if (number >= 0 && hits.includes(number)) { hits.splice(hits.indexOf(number), 1); hits.unshift(number); }
    order = hits;
    byId("count").textContent = `${order.length.toLocaleString("en")} of ${n.toLocaleString("en")} latents`;
    byId("spacer").style.height = `${order.length * HEIGHT}px`;
    byId("list").scrollTop = 0;
    draw(); drawMap();
  };
  const draw = () => {
    const list = byId("list"), first = Math.max(0, Math.floor(list.scrollTop / HEIGHT) - 4);
    const last = Math.min(order.length, first + Math.ceil(list.clientHeight / HEIGHT) + 8);
    const rows = [];
    for (let at = first; at < last; at++) {
      const i = order[at], element = make("div", dead(i) ? "row dead" : "row");
      element.id = `r${i}`; element.dataset.latent = i;
      element.setAttribute("role", "option"); element.setAttribute("aria-selected", String(i === current));
      element.style.top = `${at * HEIGHT}px`;
      element.append(make("span", "n", String(i)), make("span", "w", dead(i) ? "never fires" : labelOf(i) || tokensOf(i).join("  ")), make("span", "d", dead(i) ? "" : `${Number((100 * index.density[i]).toPrecision(2))}%`));
      rows.push(element);
    }
    byId("spacer").replaceChildren(...rows);
    if (current >= 0) list.setAttribute("aria-activedescendant", `r${current}`);
  };
  const reveal = () => {
    const at = order.indexOf(current), list = byId("list");
    if (at < 0) return draw();
    if (at * HEIGHT < list.scrollTop) list.scrollTop = at * HEIGHT;
    else if ((at + 1) * HEIGHT > list.scrollTop + list.clientHeight) list.scrollTop = (at + 1) * HEIGHT - list.clientHeight;
    draw();
  };
  const walk = (step) => {
    if (!order.length) return;
    const at = order.indexOf(current);
    open(order[Math.min(order.length - 1, Math.max(0, at < 0 ? 0 : at + step))]);
  };

  // -- map -------------------------------------------------------------------------------------------------------
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const spot = (i, width, height) => [8 + (index.place[2 * i] / 65535) * (width - 16), 8 + (index.place[2 * i + 1] / 65535) * (height - 16)];
  const drawMap = () => {
    const canvas = byId("map"), scale = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    canvas.width = width * scale; canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const hits = new Uint8Array(n);
    for (const i of order) hits[i] = 1;
    const size = n > 4000 ? 1.4 : n > 800 ? 2 : 2.8;
    for (const pass of [0, 1]) {
      pen.fillStyle = style(pass ? "--plus" : "--line");
      for (let i = 0; i < n; i++) {
        if (dead(i) || hits[i] !== pass) continue;
        const [x, y] = spot(i, width, height);
        pen.fillRect(x - size / 2, y - size / 2, size, size);
      }
    }
    if (current >= 0 && !dead(current)) {
      const [x, y] = spot(current, width, height);
      pen.strokeStyle = style("--minus"); pen.lineWidth = 2.5; pen.beginPath(); pen.arc(x, y, 6, 0, 7); pen.stroke();
    }
  };
  const nearest = (event) => {
    const canvas = byId("map"), box = canvas.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
    let best = -1, least = 200;
    for (const i of order) {
      if (dead(i)) continue;
      const [x, y] = spot(i, canvas.clientWidth, canvas.clientHeight), d = (x - px) ** 2 + (y - py) ** 2;
      if (d < least) { least = d; best = i; }
    }
    return best;
  };

  // -- one latent ------------------------------------------------------------------------------------------------
  const bars = (counts, low, high, name) => {
    const box = svg("svg", { viewBox: "0 0 320 120", preserveAspectRatio: "none", role: "img", "aria-label": name });
    const most = Math.sqrt(Math.max(...counts, 1)), wide = 320 / counts.length;
    counts.forEach((count, i) => {
      const tall = (Math.sqrt(count) / most) * 96, rect = svg("rect", { x: i * wide + 0.5, y: 100 - tall, width: wide - 1, height: tall });
      const tip = svg("title");
      tip.textContent = `${short(low + (i / counts.length) * (high - low))} to ${short(low + ((i + 1) / counts.length) * (high - low))}: ${count.toLocaleString("en")}`;
      rect.append(tip); box.append(rect);
    });
    box.append(svg("line", { x1: 0, x2: 320, y1: 100.5, y2: 100.5 }));
    const figure = make("div"), ends = make("p", "note");
    ends.textContent = `${short(low)} to ${short(high)} (height: square root of the count)`;
    figure.append(box, ends);
    return figure;
  };
  const table = (heads, rows) => {
    const element = make("table"), top = element.createTHead().insertRow(), body = element.createTBody();
    for (const head of heads) top.append(make("th", "", head));
    for (const cells of rows) body.insertRow().append(...cells);
    return element;
  };
  const cell = (text, name) => make("td", name, text);
  const link = (i) => {
    const holder = make("td"), button = make("button", "link", `${i}`);
    button.type = "button"; button.addEventListener("click", () => open(i, true));
    holder.append(button, make("small", "", `  ${labelOf(i) || tokensOf(i).join(" ")}`));
    return holder;
  };
  const related = (block, name, i, head, isLatent) => {
    const rows = [];
    row(block[name], i).forEach((found, j) => {
      if (!found) return;
      const value = row(block[`${name}_value`], i)[j] / 127;
      rows.push([isLatent ? link(found - 1) : cell(String(found - 1)), cell(value.toFixed(2))]);
    });
    return rows.length ? table(head, rows) : make("p", "note", "none");
  };
  const titled = (title, small, ...inside) => {
    const part = make("section"), head = make("h3", "", title);
    if (small) head.append(make("small", "", small));
    part.append(head, ...inside);
    return part;
  };
  const exampleLine = (view, e) => {
    const { block, low, high } = view, length = block.length[e], left = block.left[e], at = block.at[e];
    const codes = new Float64Array(length);
    const most = Math.max(high, -low) || 1;
    for (let j = view.starts[e]; j < view.starts[e + 1]; j++) codes[block.offset[j]] = low + (block.value[j] / 255) * (high - low);
    const line = make("div", "example"), text = make("div", extra.spaced ? "t" : "t gap");
    for (let j = 0; j < length; j++) {
      const piece = make("span", j === left ? "peak" : "", word(corpus.ids[at + j]));
      if (codes[j]) { piece.style.background = Page.tint(codes[j] / most); piece.title = short(codes[j]); }
      text.append(piece, make("wbr"));
    }
    line.append(make("span", "v", short(codes[left])), text);
    return line;
  };
  const examples = (block, i) => {
    const inside = i % extra.chunk, groups = block.groups.width;
    let first = 0;
    for (let g = 0; g < inside * groups; g++) first += block.groups[g];
    const view = { block, low: index.span[2 * i], high: largest(i), starts: block.starts };
    const parts = [], counts = row(block.groups, inside), share = row(block.share, inside), most = Math.max(view.high, -view.low);
    counts.forEach((count, g) => {
      if (!count) return;
      const span = g ? `${short(most * (1 - g / extra.intervals))} to ${short(most * (1 - (g - 1) / extra.intervals))}, ${short((100 * share[g - 1]) / 65535)}% of its firings` : "";
      parts.push(titled(g ? `Interval ${g}` : "Strongest", span, ...Array.from({ length: count }, (_, e) => exampleLine(view, first + e))));
      first += count;
    });
    return parts;
  };
  const logits = (block, i) => {
    if (!block.top) return [titled("Logits", "", make("p", "note", extra.facts["no logits"]))];
    const [low, high] = row(block.logit_edges, i), wide = high - low;
    const side = (name, kind) => table([kind === "up" ? "promoted" : "suppressed", "direct effect"],
      [...row(block[name], i)].map((t, j) => [cell(word(t), `w ${kind}`), cell((low + (row(block[`${name}_value`], i)[j] / 255) * wide).toFixed(2))]));
    const pair = make("div", "pair");
    pair.append(side("top", "up"), side("bottom", "down"));
    return [titled("Direct effect on logits", "arbitrary unit", pair, bars([...row(block.logit_counts, i)], low, high, "Histogram of direct effects over the vocabulary"))];
  };
  const curve = (card) => {
    const box = svg("svg", { viewBox: "0 0 320 120", preserveAspectRatio: "none", role: "img", "aria-label": "Effect of steering by amount" });
    const most = Math.max(...card.effect, ...card.high, 1e-12), low = Math.min(...card.amounts), high = Math.max(...card.amounts);
    const point = (x, y) => `${(((x - low) / (high - low)) * 320).toFixed(1)},${(105 - (y / most) * 95).toFixed(1)}`;
    const band = card.amounts.map((x, j) => point(x, card.high[j])).concat(card.amounts.map((x, j) => point(x, card.low[j])).reverse());
    box.append(svg("polygon", { class: "band", points: band.join(" ") }), svg("polyline", { class: "curve", points: card.amounts.map((x, j) => point(x, card.effect[j])).join(" ") }), svg("line", { x1: 0, x2: 320, y1: 105.5, y2: 105.5 }));
    return box;
  };
  const causal = (i) => {
    const card = extra.causal[i];
    if (!card) return [];
    const side = (rows, kind) => table([kind === "up" ? "more likely" : "less likely", "change of log-probability"], rows.map(([t, v]) => [cell(word(t), `w ${kind}`), cell(v.toFixed(3))]));
    const pair = make("div", "pair"), said = make("div");
    pair.append(side(card.up, "up"), side(card.down, "down"));
    const other = card.ablated[1] === null ? "" : `; ablating the next strongest latent there, ${short(card.ablated[1])}`;
    said.append(make("p", "note", `Steering by ${short(card.amounts[0])} to ${short(card.amounts.at(-1))}: KL from the unedited prediction, at most ${short(Math.max(...card.effect, ...card.high))} nats a token. Grey: the middle 90% of random latents of equal length.`),
      make("p", "note", `Ablated at its strongest tokens, the prediction there moves by ${short(card.ablated[0])} nats${other}.`));
    if (card.plain) said.append(make("p", "note", "A prompt continued as it is, and steered by the largest code:"), make("p", "said", card.plain), make("p", "said", card.steered));
    return [titled("Tried out", "", curve(card), said, pair)];
  };
  const stat = (list, name, value) => { const item = make("div"); item.append(make("dt", "", name), make("dd", "", value)); list.append(item); };

  const render = async (i) => {
    const block = await chunk(Math.floor(i / extra.chunk)), inside = i % extra.chunk, main = byId("latent");
    if (i !== current) return; // another one was opened meanwhile
    if (!block.starts) {
      block.starts = new Uint32Array(block.count.length + 1);
      for (let e = 0; e < block.count.length; e++) block.starts[e + 1] = block.starts[e] + block.count[e];
    }
    const head = make("div"), back = make("button", "step", "\u2190 k"), on = make("button", "step", "j \u2192");
    back.addEventListener("click", () => walk(-1)); on.addEventListener("click", () => walk(1));
    head.append(make("h2", "", `Latent ${i}`), back, on);
    const parts = [head], said = extra.explanations[i];
    if (said) {
      const line = make("p", "label", said.text);
      line.append(make("small", "", `  explained by a language model; ${Object.entries(said.scores).map(([k, v]) => `${k} ${v.toFixed(2)}`).join(", ") || "not scored"}`));
      parts.push(line);
    }
    if (conceptOf(i)) {
      const [score, share, found] = [index.auroc, index.precision, index.recall].map((column) => (column[i] / 255).toFixed(2));
      const told = `AUROC ${score}, ${share} of its firings, ${found} of the label's tokens, on held-out texts`;
      const line = make("p", fits(i) ? "label" : "note", fits(i) ? conceptOf(i) : `No label fits well; the nearest is ${conceptOf(i)} (${told}).`);
      if (fits(i)) line.append(make("small", "", `  ${told}`));
      parts.push(line);
    }
    const facts = make("dl");
    stat(facts, "fires on", dead(i) ? "no token" : `${short(100 * index.density[i])}%`);
    stat(facts, "texts", index.texts[i].toLocaleString("en"));
    stat(facts, "largest code", short(largest(i)));
    if (index.span[2 * i] < 0) stat(facts, "smallest code", short(index.span[2 * i]));
    stat(facts, "alignment", (index.aligned[i] / 255).toFixed(2));
    parts.push(facts);
    if (dead(i)) parts.push(make("p", "note", `This latent fires on none of the ${extra.facts.tokens.toLocaleString("en")} tokens that were read.`));
    else if (index.texts[i] < 20) parts.push(make("p", "note", `Few texts: it fires on ${index.texts[i]} of ${extra.facts.texts.toLocaleString("en")}, all shown.`));
    const [strongest, ...rest] = dead(i) ? [] : examples(block, i);
    if (strongest) parts.push(strongest, titled("Codes that are on", "", bars([...row(block.histogram, inside)], index.span[2 * i], largest(i), "Histogram of codes")));
    parts.push(...logits(block, inside), ...causal(i));
    const pair = make("div", "pair");
    if (!dead(i)) pair.append(titled("Fire together", "correlation of codes", related(block, "correlated", inside, ["latent", "r"], true)));
    pair.append(titled("Point alike", "cosine of directions", related(block, "neighbours", inside, ["latent", "cosine"], true)));
    if (!dead(i)) pair.append(titled("Coordinates of the site", "correlation with the code", related(block, "coordinates", inside, ["coordinate", "r"], false)));
    pair.append(titled("Direction", "share of its length", related(block, "alignment", inside, ["coordinate", "share"], false)));
    parts.push(pair, ...rest);
    main.replaceChildren(...parts);
    main.scrollTop = 0;
    shown = i;
    document.documentElement.dataset.latent = String(i);
  };
  const open = (i, remember) => {
    if (!(i >= 0 && i < n)) {
      byId("latent").replaceChildren(make("p", "note", `There is no latent of that number: they run from 0 to ${n - 1}.`));
      return;
    }
    current = i;
    const hash = `#f=${i}`;
    if (location.hash !== hash) { if (remember) history.pushState(null, "", hash); else history.replaceState(null, "", hash); }
    reveal(); drawMap();
    render(i).catch(failed);
  };
  const follow = () => {
    const asked = /^#f=(\d+)$/.exec(location.hash);
    if (asked) open(Number(asked[1]));
    return Boolean(asked);
  };
  const failed = (error) => {
    document.documentElement.dataset.ready = "failed";
    byId("latent").replaceChildren(make("p", "note", `This page cannot be drawn: ${error.message}`));
  };

  const listen = () => {
    byId("search").addEventListener("input", filter);
    byId("sort").addEventListener("change", filter);
    byId("show").addEventListener("change", filter);
    byId("list").addEventListener("scroll", draw);
    byId("list").addEventListener("click", (event) => {
      const hit = event.target.closest("[data-latent]");
      if (hit) open(Number(hit.dataset.latent), true);
    });
    byId("map").addEventListener("click", (event) => { const i = nearest(event); if (i >= 0) open(i, true); });
    byId("map").addEventListener("mousemove", (event) => {
      const i = nearest(event);
      byId("under").textContent = i < 0 ? "" : `${i}: ${labelOf(i) || tokensOf(i).join(" ")}`;
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target === byId("search"), choosing = event.target.tagName === "SELECT";
      const steps = { ArrowDown: 1, ArrowUp: -1, ...(typing ? {} : { j: 1, k: -1 }) };
      if (event.key === "Escape") { byId("search").value = ""; byId("search").blur(); filter(); reveal(); }
      else if (event.key === "/" && !typing) byId("search").focus();
      else if (event.key === "Enter" && typing) { if (order.length) open(order[0], true); }
      else if (event.key in steps && !choosing && !event.target.closest("main")) walk(steps[event.key]);
      else if ((event.key === "j" || event.key === "k") && !typing && !choosing) walk(steps[event.key]);
      else if (event.key === "Home" && !typing && !choosing) walk(-order.length);
      else if (event.key === "End" && !typing && !choosing) walk(order.length);
      else return;
      event.preventDefault();
    });
    window.addEventListener("hashchange", follow);
    window.addEventListener("resize", () => { draw(); drawMap(); });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawMap);
  };
  const start = async () => {
    [index, corpus] = await Promise.all([unpack("index"), unpack("corpus")]);
    extra = index.extra; words = extra.words; n = index.density.length;
    for (const [name, value] of Object.entries(extra.facts)) if (value !== "" && name !== "no logits") stat(byId("facts"), name, typeof value === "number" ? value.toLocaleString("en") : String(value));
    listen();
    filter();
    if (!follow()) { const first = order.findIndex((i) => !dead(i)); open(order[Math.max(0, first)]); }
    document.documentElement.dataset.ready = "true";
  };
  start().catch(failed);
})();
