"use strict";
// What every page draws with. Nothing here makes a request; texts become text nodes, never markup.
const Page = (() => {
  const DRAWN = /^(svg|g|path|rect|text|line|circle|title|polygon|polyline)$/;
  // An element with attributes and children; a string among the children is text.
  const element = (tag, attributes = {}, ...children) => {
    const made = DRAWN.test(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };

  const number = (value, digits = 3) => {
    if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
    if (!Number.isFinite(value)) return value < 0 ? "\u2212\u221e" : "\u221e";
    const text = Math.abs(value) >= 1e4 || (value !== 0 && Math.abs(value) < 1e-4) ? value.toExponential(digits - 1) : Number(value.toPrecision(digits)).toString();
    return text.replace("-", "\u2212");
  };

  // -- blocks of arrays: see packing.py ----------------------------------------------------------------
  const KINDS = { u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i1: Int8Array, f4: Float32Array };
  const unpack = async (text) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const whole = new Uint8Array(await new Response(stream).arrayBuffer());
    const length = new DataView(whole.buffer).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(whole.subarray(4, 4 + length)));
    const block = { extra: header.extra };
    let place = 4 + length;
    for (const [column, kind, shape] of header.columns) {
      const width = KINDS[kind].BYTES_PER_ELEMENT, n = shape.reduce((a, b) => a * b, 1);
      const mixed = new Uint8Array(n * width);
      for (let b = 0; b < width; b++) for (let i = 0; i < n; i++) mixed[i * width + b] = whole[place + b * n + i];
      block[column] = new KINDS[kind](mixed.buffer);
      block[column].width = shape.length > 1 ? shape[1] : 1;
      place += n * width;
    }
    return block;
  };
  const row = (array, i) => array.subarray(i * array.width, (i + 1) * array.width);

  // A level from -1 to 1 as a colour to lay behind text: blue above 0, orange below, nothing at 0.
  const tint = (level) => `color-mix(in srgb, var(${level < 0 ? "--minus" : "--plus"}) calc(var(--tint) * ${Math.min(1, Math.abs(level)).toFixed(3)}), transparent)`;

  // The concrete colour of a variable, for a canvas.
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // A line of tokens to look at and to choose from: by mouse, or with Tab, the arrow keys, Enter and Escape.
  const said = (word) => (word === "" ? "\u2205" : word.length > 120 ? `${word.slice(0, 119)}\u2026` : word);
  const chips = (words, spaced, { look, leave = () => {}, pick = () => {}, drop = () => {}, turn = () => {} }) => {
    const line = element("div", { class: spaced ? "chips" : "chips gap" });
    const all = words.map((word, i) => element("span", { class: "chip", role: "button", tabindex: i ? "-1" : "0", "data-at": i }, said(word)));
    line.append(...all.flatMap((chip) => [chip, element("wbr")])); // a line ends between tokens, not inside one
    const at = (event) => all.indexOf(event.target.closest(".chip"));
    line.addEventListener("mouseover", (event) => { if (at(event) >= 0) look(at(event)); });
    line.addEventListener("mouseleave", leave);
    line.addEventListener("focusin", (event) => {
      for (const chip of all) chip.tabIndex = chip === event.target ? 0 : -1;
      look(at(event));
    });
    line.addEventListener("click", (event) => { if (at(event) >= 0) { all[at(event)].focus(); pick(at(event)); } });
    line.addEventListener("keydown", (event) => {
      const i = at(event), goes = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: all.length - 1 }[event.key];
      if (goes !== undefined) all[Math.max(0, Math.min(all.length - 1, goes))].focus();
      else if (event.key === "Enter" || event.key === " ") pick(i);
      else if (event.key === "Escape") drop();
      else if (event.key === "ArrowDown" || event.key === "ArrowUp") turn(event.key === "ArrowDown" ? 1 : -1);
      else return;
      event.preventDefault();
    });
    return { line, all };
  };

  // One of several, as buttons; a list where there are many.
  const choice = (label, options, chosen, on) => {
    if (options.length > 8) {
      const list = element("select", { "aria-label": label }, ...options.map((text, i) => element("option", { value: i }, text)));
      list.value = String(chosen);
      list.addEventListener("change", () => on(Number(list.value)));
      return { box: element("label", {}, `${label} `, list), set: (i) => { list.value = String(i); } };
    }
    const box = element("div", { class: "choice", role: "group", "aria-label": label });
    const set = (i) => [...box.children].forEach((button, j) => button.setAttribute("aria-pressed", String(i === j)));
    options.forEach((text, i) => {
      const button = element("button", { type: "button" }, text);
      button.addEventListener("click", () => on(i));
      box.append(button);
    });
    set(chosen);
    return { box, set };
  };

  // A bar of colours from nothing (or from below it) to the value of the full colour.
  const legend = (box, low, high) => {
    const bar = element("i");
    bar.style.background = `linear-gradient(to right, ${tint(low < 0 ? -1 : 0)}, ${low < 0 ? `${tint(0)}, ` : ""}${tint(1)})`;
    box.replaceChildren(number(low), bar, number(high));
    box.setAttribute("aria-label", `Scale from ${number(low)} to ${number(high)}`);
  };

  return { element, number, unpack, row, tint, colour, chips, choice, legend };
})();
