// Draws the figures of the page from the JSON blocks beside them. Everything the page needs is inside it:
// no request is made, and whatever came from a model or a text reaches the document as text only.
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const CONFIG = { displaylogo: false, modeBarButtonsToRemove: ["sendChartToCloud", "lasso2d", "select2d"], responsive: true };

  const variable = (name) => getComputedStyle(root).getPropertyValue(name).trim();

  // The bundle is allowed by its hash in the page's policy, so it may run as an inline script once inflated.
  const load = async () => {
    const bytes = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    if (!window.Plotly) throw new Error("the figure library did not start");
  };

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const merge = (base, over) => {
    const out = { ...base };
    for (const [key, value] of Object.entries(over)) {
      out[key] = isObject(value) && isObject(out[key]) ? merge(out[key], value) : value;
    }
    return out;
  };

  // On a dark page the figures' colours become their lighter twins; they stay apart under colour blindness.
  const LIGHTER = { "#0072b2": "#56a9e8", "#d55e00": "#ff8b4a", "#009e73": "#2fc79b", "#cc79a7": "#e5a0c6",
    "#e69f00": "#f2b840", "#56b4e9": "#9bd4f7", "#000000": "#e4e7ea", "#444444": "#b5bdc6", "#767676": "#98a1aa" };
  const isDark = () => dark.matches && !root.classList.contains("printing");
  const lit = (text) => (isDark() ? text.replace(/#[0-9a-f]{6}/gi, (hex) => LIGHTER[hex.toLowerCase()] || hex) : text);

  // The page's ink, grid and type, laid over what a figure brings, so that all figures look alike in either light.
  const dressed = (figure) => {
    const ink = variable("--ink"), soft = variable("--soft"), line = variable("--line"), sans = variable("--sans");
    const text = { color: soft, family: sans, size: 12 };
    const axis = { gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, tickfont: text,
      title: { font: { color: soft, family: sans, size: 12.5 }, standoff: 12 }, automargin: true };
    const bar = { outlinewidth: 0, tickfont: text, title: { font: text }, thickness: 12 };
    const clear = "rgba(0,0,0,0)";
    const layout = merge(figure.layout || {}, {
      font: { family: sans, color: ink, size: 12.5 }, paper_bgcolor: clear, plot_bgcolor: clear,
      legend: { font: text, bgcolor: clear }, modebar: { bgcolor: clear, color: soft, activecolor: variable("--accent") },
      hoverlabel: { bgcolor: variable("--raised"), bordercolor: line, font: { color: ink, family: variable("--mono"), size: 12 } },
      xaxis: {}, yaxis: {}, coloraxis: { colorbar: bar }, autosize: true,
    });
    for (const key of Object.keys(layout)) {
      if (!/^[xy]axis[0-9]*$/.test(key)) continue;
      layout[key] = merge(layout[key], layout[key].type === "category" ? { ...axis, showgrid: false } : axis);
    }
    for (const note of layout.annotations || []) note.font = { ...text, ...(note.font || {}), color: soft };
    for (const trace of figure.data) {
      if (trace.fill && !trace.mode) trace.mode = "lines"; // a band has no points of its own
      if ("colorbar" in trace || trace.type === "heatmap") trace.colorbar = merge(trace.colorbar || {}, bar);
      for (const error of [trace.error_x, trace.error_y]) if (error) error.color = soft;
    }
    delete layout.title; // the page has it as a heading
    delete layout.width;
    layout.margin = { l: 60, r: 20, b: 52, ...(layout.margin || {}), t: 30 };
    return layout;
  };

  const draw = async (element) => {
    const figure = JSON.parse(lit(document.getElementById(element.dataset.figure).textContent));
    await window.Plotly.react(element, figure.data, dressed(figure), CONFIG);
    element.classList.add("drawn");
  };

  const drawAll = async () => {
    for (const element of document.querySelectorAll("[data-figure]")) {
      try {
        await draw(element);
      } catch (error) {
        element.textContent = `This figure cannot be drawn: ${error.message}`;
        element.classList.add("undrawn");
      }
    }
  };

  // The contents list shows where the reader is.
  const follow = () => {
    const links = new Map([...document.querySelectorAll("nav a[href^='#']")].map((a) => [a.hash.slice(1), a]));
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "true");
      }
    }, { rootMargin: "-10% 0px -75% 0px" });
    for (const id of links.keys()) {
      const target = document.getElementById(id);
      if (target) seen.observe(target);
    }
  };

  // A click on a column's heading sorts the rows by it, numbers as numbers.
  const sortable = (table) => {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = cell.textContent;
      cell.replaceChildren(button);
      button.addEventListener("click", () => {
        const up = cell.getAttribute("aria-sort") !== "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        cell.setAttribute("aria-sort", up ? "ascending" : "descending");
        const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const order = (a, b) => {
          const x = Number(key(a)), y = Number(key(b));
          return Number.isNaN(x) || Number.isNaN(y) ? key(a).localeCompare(key(b)) : x - y;
        };
        body.append(...[...body.rows].sort((a, b) => (up ? order(a, b) : order(b, a))));
      });
    });
  };

  const start = async () => {
    follow();
    document.querySelectorAll("table.sortable").forEach(sortable);
    if (document.querySelector("[data-figure]")) {
      await load();
      await drawAll();
      dark.addEventListener("change", drawAll);
      window.addEventListener("beforeprint", () => { root.classList.add("printing"); drawAll(); });
      window.addEventListener("afterprint", () => { root.classList.remove("printing"); drawAll(); });
    }
    root.dataset.ready = "true";
  };
  start().catch((error) => {
    root.dataset.ready = "failed";
    for (const element of document.querySelectorAll("[data-figure]:not(.drawn)")) {
      element.textContent = `This figure cannot be drawn: ${error.message}`;
      element.classList.add("undrawn");
    }
  });
})();
