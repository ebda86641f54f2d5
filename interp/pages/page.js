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

  return { element, number, unpack, row, tint };
})();
