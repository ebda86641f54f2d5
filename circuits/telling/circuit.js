// Draws a circuit from the JSON block of the page. No request is made; whatever came from a model or a text reaches
// the document as text only.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const byId = (id) => document.getElementById(id);
  const R = JSON.parse(byId("record").textContent);
  const G = R.graph;

  const make = Page.element, number = Page.number;

  // -- edges, in the order of every array ---------------------------------------------------------------
  const n = G.scores.length;
  const source = new Int32Array(n), destination = new Int32Array(n), offsets = [0];
  for (let d = 0, e = 0; d < G.reads.length; d++) {
    for (let s = 0; s < G.reads[d]; s++, e++) { source[e] = s; destination[e] = d; }
    offsets.push(e = offsets[d] + G.reads[d]);
  }
  const edgeName = (e) => `${G.sources[source[e]]}->${G.destinations[destination[e]]}`;
  const ownerOf = G.destinations.map((name) => name.split("<")[0]);
  const portOf = G.destinations.map((name) => (name.includes("<") ? name.slice(name.indexOf("<") + 1, -1) : ""));
  const size = Math.max(...G.scores.map(Math.abs)) || 1;
  const order = Int32Array.from(G.scores.keys()).sort((a, b) => Math.abs(G.scores[b]) - Math.abs(G.scores[a]) || a - b);
  const exact = new Map(G.exact.edges.map((e, i) => [e, [G.exact.values[i], G.exact.stderr ? G.exact.stderr[i] : null]]));
  const inclusion = new Map(R.stability ? R.stability.edges.map((e, i) => [e, R.stability.inclusion[i]]) : []);
  const interval = (e) => (G.stderr ? `${number(G.scores[e] - 1.96 * G.stderr[e])} to ${number(G.scores[e] + 1.96 * G.stderr[e])}` : "\u2013");

  // Without the edges that no path from the input to the logits goes through.
  const pruned = (chosen) => {
    const keep = Uint8Array.from(chosen);
    const reached = new Uint8Array(G.sources.length), wanted = new Uint8Array(G.sources.length);
    for (const s of G.roots ?? [0]) reached[s] = 1;
    for (let d = 0; d < G.reads.length; d++) {
      let any = false;
      for (let e = offsets[d]; e < offsets[d + 1]; e++) { keep[e] &= reached[source[e]]; any ||= keep[e] === 1; }
      if (any) for (const s of G.feeds[d]) reached[s] = 1;
    }
    for (let d = G.reads.length - 1; d >= 0; d--) {
      const dead = G.feeds[d].length > 0 && !G.feeds[d].some((s) => wanted[s]);
      for (let e = offsets[d]; e < offsets[d + 1]; e++) { if (dead) keep[e] = 0; wanted[source[e]] |= keep[e]; }
    }
    return keep;
  };

  // -- where the nodes stand ----------------------------------------------------------------------------
  const nodes = new Map();
  const place = (name) => {
    if (G.places?.[name]) return G.places[name]; // a graph of other parts says where they stand
    if (name === "input") return { row: -1, kind: "input" };
    if (name === "logits") return { row: 1e6, kind: "logits" };
    const [, kind, layer, group, index] = /^([am])(\d+)(?:\.(h|kv)(\d+))?$/.exec(name);
    return { row: 2 * layer + (kind === "m"), kind: kind === "m" ? "MLP" : group === "kv" ? "keys and values" : "head", layer: +layer, index: +(index ?? 0), group };
  };
  for (const name of new Set([...G.sources, ...ownerOf])) nodes.set(name, { name, ...place(name) });
  const rows = [...new Set([...nodes.values()].map((node) => node.row))].sort((a, b) => a - b);
  const widest = Math.max(...rows.map((row) => [...nodes.values()].filter((node) => node.row === row).length));
  const WIDE = Math.max(760, 70 * widest + 90), STEP = 52, BOX = { w: 50, h: 22 }, TALL = STEP * rows.length + 20;
  rows.forEach((row, r) => {
    const here = [...nodes.values()].filter((node) => node.row === row);
    here.forEach((node, i) => { node.x = 70 + ((WIDE - 80) * (i + 0.5)) / here.length; node.y = TALL - 30 - STEP * r; });
  });

  const drawing = make("svg", { viewBox: `0 0 ${WIDE} ${TALL}`, role: "group", "aria-label": "The circuit as a layered graph" });
  const wires = make("g"), boxes = make("g");
  drawing.append(wires, boxes);
  rows.forEach((row, r) => {
    const said = G.rows ? G.rows[row] : row === -1 ? "input" : row === 1e6 ? "logits" : `${row % 2 ? "MLP" : "heads"} ${Math.floor(row / 2)}`;
    const text = make("text", { class: "row-name", x: 6, y: TALL - 30 - STEP * r + 3 });
    text.textContent = said;
    drawing.append(text);
  });
  for (const node of nodes.values()) {
    const label = make("text", { x: node.x, y: node.y });
    label.textContent = node.label ? node.label : node.kind === "head" || node.group ? node.name.slice(node.name.indexOf(".") + 1) : node.name;
    node.box = make("g", { class: "node", tabindex: "0", role: "button", "aria-pressed": "false", "data-node": node.name },
      make("rect", { x: node.x - BOX.w / 2, y: node.y - BOX.h / 2, width: BOX.w, height: BOX.h, rx: 4 }), label);
    node.box.addEventListener("click", () => select(node.name));
    node.box.addEventListener("keydown", (event) => keyed(event, node));
    boxes.append(node.box);
  }
  byId("drawing").append(drawing);

  const keyed = (event, node) => {
    const row = rows.indexOf(node.row);
    const near = (r) => [...nodes.values()].filter((other) => other.row === rows[r]).sort((a, b) => Math.abs(a.x - node.x) - Math.abs(b.x - node.x));
    const sideways = (step) => {
      const here = [...nodes.values()].filter((other) => other.row === node.row).sort((a, b) => a.x - b.x);
      return here[here.indexOf(node) + step];
    };
    const moves = { ArrowUp: () => near(row + 1)[0], ArrowDown: () => near(row - 1)[0], ArrowLeft: () => sideways(-1), ArrowRight: () => sideways(1) };
    if (event.key === "Enter" || event.key === " ") select(node.name);
    else if (event.key === "Escape") select(null);
    else if (moves[event.key]) moves[event.key]()?.box.focus();
    else return;
    event.preventDefault();
  };

  // -- what is shown ------------------------------------------------------------------------------------
  let shown = [], picked = null, own = true;
  const wire = (e) => {
    const a = nodes.get(G.sources[source[e]]), b = nodes.get(ownerOf[destination[e]]);
    const shift = { q: -16, k: 0, v: 16 }[portOf[destination[e]]] ?? 0;
    const x = b.x + shift, y0 = a.y - BOX.h / 2, y1 = b.y + BOX.h / 2, bend = Math.max(18, (y0 - y1) * 0.45);
    const strength = Math.sqrt(Math.abs(G.scores[e]) / size);
    const path = make("path", { d: `M${a.x} ${y0}C${a.x} ${y0 - bend} ${x} ${y1 + bend} ${x} ${y1}`, "data-edge": e,
      class: `edge ${G.scores[e] < 0 ? "minus" : "plus"}`, "stroke-width": (0.6 + 3.6 * strength).toFixed(2) });
    path.style.opacity = (0.25 + 0.7 * strength).toFixed(2);
    if (shown.length <= 2000) {
      const title = make("title");
      title.textContent = `${edgeName(e)}: ${number(G.scores[e])}`;
      path.append(title);
    }
    return path;
  };
  const most = G.drawable ?? n; // edges behind these were not measured
  const steps = (value) => Math.max(1, Math.round(most ** (value / 1000)));
  const redraw = () => {
    let mask = new Uint8Array(n);
    if (own) for (const e of G.chosen) mask[e] = 1;
    else {
      for (const e of order.subarray(0, steps(+byId("size").value))) mask[e] = 1;
      if (byId("prune").checked) mask = pruned(mask);
    }
    shown = Array.from(order).filter((e) => mask[e]);
    byId("size-said").textContent = own ? `${shown.length} (the report's)` : `${shown.length}`;
    byId("back").disabled = own;
    wires.replaceChildren(...shown.map(wire).reverse());
    const touched = new Set(["input", "logits"]);
    for (const e of shown) { touched.add(G.sources[source[e]]); touched.add(ownerOf[destination[e]]); }
    for (const node of nodes.values()) {
      node.box.classList.toggle("idle", !touched.has(node.name));
      const i = R.nodes.names.indexOf(node.name);
      node.box.setAttribute("aria-label", `${node.name}, ${node.kind}${i < 0 ? "" : `, score ${number(R.nodes.scores[i])}`}`);
    }
    table();
    light();
  };
  const touches = (e, name) => G.sources[source[e]] === name || ownerOf[destination[e]] === name;
  const light = () => {
    for (const path of wires.children) path.classList.toggle("faint", picked !== null && !touches(+path.dataset.edge, picked));
    for (const node of nodes.values()) node.box.setAttribute("aria-pressed", String(node.name === picked));
  };

  const cells = (tag, values) => make("tr", {}, ...values.map((value, i) => {
    const cell = make(tag, i && tag === "td" ? { class: "num" } : {});
    cell.textContent = value;
    return cell;
  }));
  const table = () => {
    const lines = shown.slice(0, 300).map((e) => cells("td", [edgeName(e), number(G.scores[e], 4), interval(e),
      exact.has(e) ? number(exact.get(e)[0], 4) : "\u2013", inclusion.has(e) ? number(inclusion.get(e), 2) : "\u2013"]));
    byId("edge-table").tBodies[0].replaceChildren(...lines);
  };

  // -- the panel ----------------------------------------------------------------------------------------
  const listed = (title, edges, other) => {
    const head = make("h3");
    head.textContent = `${title} (${edges.length} edges shown)`;
    const body = make("tbody", {}, cells("th", ["", "score", "95 % interval", "exact"]),
      ...edges.slice(0, 12).map((e) => cells("td", [other(e), number(G.scores[e]), interval(e), exact.has(e) ? number(exact.get(e)[0]) : "\u2013"])));
    return edges.length ? [head, make("table", {}, body)] : [];
  };
  const pattern = (name) => {
    const held = R.attention.heads[name];
    if (!held) return [];
    const title = make("h3");
    title.textContent = "Attention";
    const choice = make("select", { "aria-label": "Prompt" });
    R.attention.rows.forEach((row, i) => { const option = make("option", { value: i }); option.textContent = `prompt ${row + 1}`; choice.append(option); });
    const frame = make("div");
    const paint = () => {
      const i = +choice.value, t = R.attention.tokens[i], words = R.prompts[R.attention.rows[i]].clean, cell = 14, left = 74;
      const svg = make("svg", { class: "pattern", viewBox: `0 0 ${left + cell * t + 40} ${cell * t + 72}`, role: "img", "aria-label": `Attention of ${name}` });
      for (let q = 0, at = 0; q < t; q++) {
        for (let k = 0; k <= q; k++, at++) {
          const value = held[i][at] / 99;
          const rect = make("rect", { x: left + k * cell, y: q * cell, width: cell - 1, height: cell - 1 });
          rect.style.opacity = (0.04 + 0.96 * value).toFixed(3);
          const said = make("title");
          said.textContent = `${words[q]} \u2192 ${words[k]}: ${value.toFixed(2)}`;
          rect.append(said);
          svg.append(rect);
        }
      }
      words.forEach((word, j) => {
        const short = word.length > 11 ? `${word.slice(0, 10)}\u2026` : word;
        const row = make("text", { x: left - 4, y: j * cell + 10, "text-anchor": "end" }), column = make("text", { transform: `translate(${left + j * cell + 9} ${cell * t + 4}) rotate(60)` });
        row.textContent = short;
        column.textContent = short;
        svg.append(row, column);
      });
      frame.replaceChildren(svg);
    };
    choice.addEventListener("change", paint);
    paint();
    return [title, choice, frame];
  };
  const select = (name) => {
    picked = name === picked ? null : name;
    const panel = byId("panel");
    if (picked === null) {
      const hint = make("p");
      hint.textContent = "No node is chosen.";
      panel.replaceChildren(hint);
    } else {
      const node = nodes.get(picked), i = R.nodes.names.indexOf(picked);
      const head = make("h3"), said = make("p");
      head.textContent = picked;
      const spread = i < 0 || R.nodes.stderr[i] === null ? "" : ` \u00b1 ${number(1.96 * R.nodes.stderr[i], 2)}`;
      said.textContent = i < 0 ? node.kind : `${node.kind}; score ${number(R.nodes.scores[i])}${spread} (sum of its outgoing edges${spread ? ", 95 % interval" : ""})`;
      const port = (e) => (portOf[destination[e]] ? ` \u2192 ${portOf[destination[e]]}` : "");
      panel.replaceChildren(head, said,
        ...listed("Reads", shown.filter((e) => ownerOf[destination[e]] === picked), (e) => G.sources[source[e]] + port(e)),
        ...listed("Writes to", shown.filter((e) => G.sources[source[e]] === picked), (e) => G.destinations[destination[e]]),
        ...pattern(picked));
    }
    light();
  };

  // -- charts -------------------------------------------------------------------------------------------
  const chart = (id, xs, ys, ticks, labels, paint) => {
    const W = 720, H = 330, L = 58, B = 44, T = 14, Rt = 14;
    const x = (v) => L + ((v - xs[0]) / (xs[1] - xs[0] || 1)) * (W - L - Rt), y = (v) => H - B - ((v - ys[0]) / (ys[1] - ys[0] || 1)) * (H - B - T);
    const svg = make("svg", { class: "chart", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": labels.join(", ") });
    const word = (text, attributes) => { const element = make("text", attributes); element.textContent = text; svg.append(element); };
    for (const [at, text] of ticks.y) { svg.append(make("line", { class: "grid", x1: L, x2: W - Rt, y1: y(at), y2: y(at) })); word(text, { x: L - 8, y: y(at) + 4, "text-anchor": "end" }); }
    let last = -Infinity;
    for (const [at, text] of ticks.x) if (x(at) - last > 34) { last = x(at); word(text, { x: x(at), y: H - B + 18, "text-anchor": "middle" }); }
    svg.append(make("line", { class: "axis", x1: L, x2: W - Rt, y1: H - B, y2: H - B }));
    word(labels[0], { x: (L + W - Rt) / 2, y: H - 6, "text-anchor": "middle" });
    word(labels[1], { transform: `translate(14 ${(H - B) / 2}) rotate(-90)`, "text-anchor": "middle" });
    paint(svg, x, y);
    byId(id).replaceChildren(svg);
  };
  const nice = (low, high) => {
    const raw = (high - low) / 5 || 1, power = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
    const out = [];
    for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) out.push([v, number(Number(v.toPrecision(6)))]);
    return out;
  };
  const line = (xs, ys, x, y) => xs.map((v, i) => `${i ? "L" : "M"}${x(v).toFixed(1)} ${y(ys[i]).toFixed(1)}`).join("");
  const area = (xs, low, high, x, y) => `${line(xs, high, x, y)}${[...xs.keys()].reverse().map((i) => `L${x(xs[i]).toFixed(1)} ${y(low[i]).toFixed(1)}`).join("")}Z`;
  const curve = () => {
    // a share of a small network may be no edge at all, which has no place on a logarithmic axis
    const some = [...R.faithfulness.sizes.keys()].filter((i) => R.faithfulness.sizes[i] > 0);
    const pick = (part) => Object.fromEntries(Object.entries(part).map(([k, v]) => [k, Array.isArray(v) ? some.map((i) => v[i]) : v]));
    const F = pick(R.faithfulness), xs = F.sizes.map(Math.log10), C = pick(R.faithfulness.control);
    const all = [...F.value, 0, 1, ...(C.low ? [...C.low, ...C.high] : [])].map((v) => Math.max(-1, Math.min(2, v)));
    const low = Math.min(...all) - 0.05, high = Math.max(...all) + 0.05;
    const clip = (values) => values.map((v) => Math.max(low, Math.min(high, v)));
    chart("curve", [xs[0], xs[xs.length - 1]], [low, high],
      { x: F.sizes.map((k, i) => [xs[i], String(k)]), y: nice(Math.min(...all), Math.max(...all)) }, [`${F.unit ?? "edges"} in the circuit`, "share of the behaviour kept"], (svg, x, y) => {
        if (C.low) svg.append(make("path", { class: "band", d: area(xs, clip(C.low), clip(C.high), x, y) }), make("path", { class: "chance", d: line(xs, clip(C.mean), x, y) }));
        if (F.interval) svg.append(make("path", { class: "area", d: area(xs, clip(F.interval.map((p) => p[0])), clip(F.interval.map((p) => p[1])), x, y) }));
        svg.append(make("path", { class: "line", d: line(xs, clip(F.value), x, y) }));
        const at = Math.log10(G.chosen.length);
        svg.append(make("line", { class: "mark", x1: x(at), x2: x(at), y1: y(Math.min(...all)), y2: y(Math.max(...all)) }));
        F.value.forEach((v, i) => {
          const title = make("title");
          title.textContent = `${F.sizes[i]} edges: ${number(v)}`;
          svg.append(make("circle", { class: "dot", cx: x(xs[i]), cy: y(clip([v])[0]), r: 3.4 }, title));
        });
      });
  };
  const scatter = () => {
    if (!R.calibration) return;
    const xs = G.exact.edges.map((e) => G.scores[e]), ys = G.exact.values;
    const low = Math.min(...xs, ...ys, 0), high = Math.max(...xs, ...ys, 0);
    chart("calibration", [low, high], [low, high], { x: nice(low, high), y: nice(low, high) }, ["estimated effect", "exact effect"], (svg, x, y) => {
      svg.append(make("path", { class: "chance", d: line([low, high], [low, high], x, y) }));
      G.exact.edges.forEach((e, i) => {
        const title = make("title");
        title.textContent = `${edgeName(e)}: estimated ${number(xs[i])}, exact ${number(ys[i])}`;
        svg.append(make("circle", { class: "dot", cx: x(xs[i]), cy: y(ys[i]), r: 3.2 }, title));
      });
    });
  };

  const tint = (value, most) => Page.tint(Math.sign(value) * Math.sqrt(Math.abs(value) / (most || 1)));
  const parts = () => {
    const order = [...R.nodes.names.keys()].sort((a, b) => Math.abs(R.nodes.scores[b]) - Math.abs(R.nodes.scores[a]));
    const held = R.nodes.positions, peak = held ? Math.max(...held.flat().map(Math.abs)) : 1;
    const body = make("tbody", {}, cells("th", ["node", "effect", "\u00b1", ...(held ? R.nodes.tokens : [])]));
    for (const i of order) {
      const row = cells("td", ["", number(R.nodes.scores[i]), R.nodes.stderr[i] === null ? "\u2013" : number(1.96 * R.nodes.stderr[i], 2)]);
      const button = make("button", { type: "button" });
      button.textContent = R.nodes.labels?.[i] ? `${R.nodes.names[i]}: ${R.nodes.labels[i]}` : R.nodes.names[i];
      button.addEventListener("click", () => { picked = null; select(R.nodes.names[i]); byId("circuit").scrollIntoView(); });
      row.cells[0].append(button);
      for (const value of held ? held[i] : []) {
        const td = make("td", { title: number(value) });
        td.style.backgroundColor = tint(value, peak);
        row.append(td);
      }
      body.append(row);
    }
    byId("heat").replaceChildren(make("table", { class: "heat" }, body));
  };
  const heat = () => {
    if (G.places) { parts(); return; }
    const layers = Math.max(-1, ...[...nodes.values()].map((node) => node.layer ?? -1)) + 1;
    const score = new Map(R.nodes.names.map((name, i) => [name, R.nodes.scores[i]]));
    const most = Math.max(...R.nodes.scores.map(Math.abs));
    const heads = Math.max(0, ...[...nodes.values()].filter((node) => node.kind === "head").map((node) => node.index + 1));
    const body = make("tbody", {}, cells("th", ["layer", ...Array.from({ length: heads }, (_, h) => `h${h}`), "MLP"]));
    const cell = (name) => {
      const td = make("td");
      if (score.has(name)) {
        const button = make("button", { type: "button", title: name });
        button.textContent = number(score.get(name), 2);
        button.addEventListener("click", () => { picked = null; select(name); byId("circuit").scrollIntoView(); });
        td.append(button);
        td.style.backgroundColor = tint(score.get(name), most);
      }
      return td;
    };
    for (let layer = 0; layer < layers; layer++) {
      const th = make("th", { scope: "row" });
      th.textContent = layer;
      body.append(make("tr", {}, th, ...Array.from({ length: heads }, (_, h) => cell(`a${layer}.h${h}`)), cell(`m${layer}`)));
    }
    byId("heat").replaceChildren(make("table", { class: "heat" }, body));
  };

  const matrix = () => {
    const columns = G.destinations.length, lines = G.sources.length, cell = Math.max(3, Math.min(10, Math.floor(900 / columns)));
    const canvas = make("canvas", { class: "matrix", width: columns * cell, height: lines * cell, role: "img", "aria-label": "Scores of all edges" });
    const pen = canvas.getContext("2d"), ink = getComputedStyle(root);
    const colours = [ink.getPropertyValue("--minus").trim(), ink.getPropertyValue("--plus").trim()];
    for (let e = 0; e < n; e++) {
      pen.globalAlpha = Math.max(0.05, Math.sqrt(Math.abs(G.scores[e]) / size));
      pen.fillStyle = colours[G.scores[e] < 0 ? 0 : 1];
      pen.fillRect(destination[e] * cell, source[e] * cell, cell - (cell > 4 ? 1 : 0), cell - (cell > 4 ? 1 : 0));
    }
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const d = Math.floor(((event.clientX - box.left) / box.width) * columns), s = Math.floor(((event.clientY - box.top) / box.height) * lines);
      return d >= 0 && d < columns && s >= 0 && s < G.reads[d] ? offsets[d] + s : -1;
    };
    canvas.addEventListener("mousemove", (event) => { const e = at(event); byId("matrix-said").textContent = e < 0 ? "" : `${edgeName(e)}: ${number(G.scores[e])} (${interval(e)})`; });
    canvas.addEventListener("click", (event) => { const e = at(event); if (e >= 0) { picked = null; select(G.sources[source[e]]); } });
    byId("matrix").replaceChildren(canvas);
  };

  const start = () => { byId("size").value = String(Math.round((1000 * Math.log(Math.max(1, G.chosen.length))) / Math.log(most))); };
  start();
  byId("size").addEventListener("input", () => { own = false; redraw(); });
  byId("prune").addEventListener("change", () => { own = false; redraw(); });
  byId("back").addEventListener("click", () => { own = true; start(); redraw(); });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", matrix);
  try {
    redraw(); curve(); scatter(); heat(); matrix();
    root.dataset.ready = "true";
  } catch (error) {
    root.dataset.ready = "failed";
    throw error;
  }
})();
