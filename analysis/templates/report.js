"use strict";
/* The report's page: sorting tables, drawing figures when they are scrolled to, and browsing
   instances. Whatever comes from the run is set as text, never as markup. */

const byId = (id) => document.getElementById(id);
const parsed = (id) => JSON.parse(byId(id)?.textContent ?? "null");

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function bytes(packed) {
  const text = atob(packed);
  const made = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) made[at] = text.charCodeAt(at);
  return made;
}

/* Little-endian numbers, as they are packed. */
function numbers(Kind, packed) {
  return new Kind(bytes(packed).buffer);
}

// Theme ---------------------------------------------------------------------------------------

const THEMES = ["auto", "light", "dark"];
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const redraws = new Set();

function setTheme(theme) {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").textContent = `Theme: ${theme}`;
  // Where a page has no storage, the choice lasts as long as the page.
  try { localStorage.setItem("attribeam-theme", theme); } catch { /* no storage */ }
  redraws.forEach((redraw) => redraw());
}

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : prefersDark.matches;
}

function startTheme() {
  let theme = "auto";
  try { theme = localStorage.getItem("attribeam-theme") ?? "auto"; } catch { /* no storage */ }
  setTheme(THEMES.includes(theme) ? theme : "auto");
  byId("theme").addEventListener("click", () => {
    const now = document.documentElement.dataset.theme ?? "auto";
    setTheme(THEMES[(THEMES.indexOf(now) + 1) % THEMES.length]);
  });
  prefersDark.addEventListener("change", () => redraws.forEach((redraw) => redraw()));
}

// Tables --------------------------------------------------------------------------------------

function cellKey(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  const number = Number(text.replaceAll(",", "").replace(/%$/, ""));
  return text !== "" && Number.isFinite(number) ? number : text;
}

function compared(a, b) {
  // Numbers before texts, so that what is lacking comes last of all.
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
  return typeof a === "number" ? a - b : a.localeCompare(b);
}

function sortBy(table, column, direction) {
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [cellKey(row.cells[column]), row]);
  const sign = direction === "ascending" ? 1 : -1;
  rows.sort(([a], [b]) => {
    if (a === "" || b === "") return (a === "") - (b === "");
    return sign * compared(a, b);
  });
  body.append(...rows.map(([, row]) => row));
  [...table.tHead.rows[0].cells].forEach((cell, at) => {
    if (at === column) cell.setAttribute("aria-sort", direction);
    else cell.removeAttribute("aria-sort");
  });
}

/* A table's cells as texts, without marks and intervals. */
function cellTexts(table) {
  return [...table.rows].map((row) => [...row.cells].map((cell) => {
    const copy = cell.cloneNode(true);
    copy.querySelectorAll("small, .mark, [aria-label$=better]").forEach((part) => part.remove());
    return copy.textContent.replaceAll("\u00ad", "").replace(/\s+/g, " ").trim();
  }));
}

const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
const escapedTex = (text) => text.replace(/[&%$#_{}]/g, "\\$&");

const COPIES = {
  CSV: (rows) => rows.map((row) => row.map(quoted).join(",")).join("\n"),
  Markdown: ([head, ...rows]) => [head, head.map(() => "---"), ...rows]
    .map((row) => `| ${row.map((text) => text.replace(/[|\\]/g, "\\$&")).join(" | ")} |`).join("\n"),
  LaTeX: ([head, ...rows]) => [`\\begin{tabular}{l${"r".repeat(head.length - 1)}}`, "\\toprule",
    `${head.map(escapedTex).join(" & ")} \\\\`, "\\midrule",
    ...rows.map((row) => `${row.map(escapedTex).join(" & ")} \\\\`), "\\bottomrule",
    "\\end{tabular}"].join("\n"),
};

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // A page from a file may have no clipboard.
    const area = element("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function offerCopies(table) {
  const line = element("div", "copies", "Copy as ");
  for (const [name, written] of Object.entries(COPIES)) {
    const button = element("button", "", name);
    button.type = "button";
    button.addEventListener("click", async () => {
      await copyText(written(cellTexts(table)));
      button.textContent = `${name} ✓`;
      setTimeout(() => { button.textContent = name; }, 1500);
    });
    line.append(button);
  }
  table.closest(".scroll").after(line);
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    const button = element("button");
    button.type = "button";
    button.append(...cell.childNodes);
    cell.append(button);
    button.addEventListener("click", () => {
      const first = cell.dataset.better === "higher" ? "descending" : "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sortBy(table, column, cell.getAttribute("aria-sort") === first ? other : first);
    });
  });
}

// Figures -------------------------------------------------------------------------------------

let plotlyReady = null;

function plotly() {
  plotlyReady ??= (async () => {
    const stream = new Blob([bytes(byId("plotly-data").textContent)]).stream();
    const text = await new Response(stream.pipeThrough(new DecompressionStream("gzip"))).text();
    const script = element("script");
    script.textContent = text;
    document.head.append(script);
    return window.Plotly;
  })();
  return plotlyReady;
}

function template() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = {
    gridcolor: colour("--line"), linecolor: colour("--line"), zerolinecolor: colour("--line"),
    automargin: true, title: { standoff: 12 },
  };
  return {
    layout: {
      paper_bgcolor: colour("--back"), plot_bgcolor: colour("--back"),
      font: { color: colour("--text") }, xaxis: axis, yaxis: axis,
      hoverlabel: { bgcolor: colour("--raised"), font: { color: colour("--text") } },
      title: { font: { size: 14 } },
    },
  };
}

/* A copy in the page's colours. Black lines and dark grey names would vanish on a dark page. */
function themed(figure) {
  let text = JSON.stringify(figure);
  if (isDark()) {
    text = text.replaceAll('"#000000"', '"#f0f0f0"').replaceAll('"#666"', '"#aab2bb"')
      .replaceAll('"#F7F7F7"', '"#2a2f36"'); // The middle of a scale would glare.
  }
  const copy = JSON.parse(text);
  copy.layout.template = template();
  return copy;
}

const NARROW = 600;
const ENTRY = 22; // Pixels that an entry of a legend is high.

/* Puts the parts of a figure that are side by side below one another. */
function stack(layout) {
  const ends = Object.keys(layout).filter((key) => /^xaxis\d*$/.test(key)).map((key) => key.slice(5));
  if (ends.length < 2) return;
  const titles = (layout.annotations ?? []).filter(({ yref }) => yref === "paper");
  layout.height = (layout.height ?? 450) * ends.length;
  ends.forEach((end, at) => {
    const top = 1 - at / ends.length;
    layout[`xaxis${end}`].domain = [0, 1];
    layout[`yaxis${end}`].domain = [top - 0.72 / ends.length, top];
    if (titles.length === ends.length) Object.assign(titles[at], { x: 0, xanchor: "left", y: top });
    if (titles.length === ends.length) titles[at].font = { ...titles[at].font, size: 13 };
  });
}

/* How a figure is laid out in its place: on a phone legends are below, and titles have lines. */
function fitted(figure, width) {
  const { layout } = figure;
  const own = figure.narrower?.find(({ below }) => width < below);
  if (own) Object.assign(layout, { height: own.height, annotations: own.annotations });
  if (width >= NARROW) return figure;
  const title = layout.title?.text ?? "";
  const letters = Math.max(20, Math.floor((width - 20) / 8));
  const lines = title.match(new RegExp(`.{1,${letters}}(?:\\s|$)`, "g")) ?? [title];
  layout.title = { ...layout.title, text: lines.map((line) => line.trim()).join("<br>") };
  if (own) return figure; // Its names are placed for the margins that it has.
  layout.margin = { ...layout.margin, l: Math.min(layout.margin?.l ?? 60, 60), r: 10 };
  stack(layout);
  const named = figure.data.filter((trace) => trace.name && trace.showlegend !== false).length;
  if (layout.showlegend !== false && named > 1) {
    layout.height = (layout.height ?? 450) + ENTRY * named;
    layout.legend = { ...layout.legend, orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom" };
    layout.margin.b = (layout.margin.b ?? 50) + ENTRY * named;
  }
  return figure;
}

function startFigure(place, figures) {
  const choice = document.querySelector(`select[data-chooses="${place.dataset.figure}"]`);
  const draw = async () => {
    const figure = fitted(themed(figures[Number(choice?.value ?? 0)]), place.clientWidth);
    place.style.height = `${figure.layout.height ?? 450}px`;
    const library = await plotly();
    await library.react(place, figure.data, figure.layout, { displaylogo: false, responsive: true });
    place.dataset.drawn = choice?.value ?? "0";
  };
  choice?.addEventListener("change", draw);
  new IntersectionObserver((entries, observer) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    redraws.add(draw);
    draw();
    let width = place.clientWidth;
    addEventListener("resize", () => { // The library fits the size, and not what stands where.
      if (place.clientWidth === width) return;
      width = place.clientWidth;
      draw();
    });
  }, { rootMargin: "300px" }).observe(place);
}

// Instances -----------------------------------------------------------------------------------

const PAGE = 25;
const FIRST = 6; // Methods that are shown at first.
const SPECIAL = 1, GLUED = 2;
const NOT_A_NUMBER = -128;

class Corpus {
  constructor(data) {
    Object.assign(this, data);
    this.lengths = numbers(Uint32Array, data.lengths);
    this.offsets = new Uint32Array(this.lengths.length + 1);
    this.lengths.forEach((n, at) => { this.offsets[at + 1] = this.offsets[at] + n; });
    this.tokens = numbers(data.wide ? Uint32Array : Uint16Array, data.tokens);
    this.rationale = data.rationale === null ? null : bytes(data.rationale);
    this.decoded = new Map();
    this.texts = [];
  }

  token(at) { return this.vocabulary[this.tokens[at]]; }
  flags(at) { return this.marks[this.tokens[at]]; }

  /* Scores of a method are unpacked when they are first looked at. */
  scores(method) {
    if (!this.decoded.has(method)) {
      this.decoded.set(method, {
        values: numbers(Int8Array, method.scores), scales: numbers(Float32Array, method.scales),
        given: bytes(method.given),
      });
    }
    return this.decoded.get(method);
  }

  has(method, instance) { return this.scores(method).given[instance] === 1; }

  score(method, instance, at) {
    const { values, scales } = this.scores(method);
    if (values[at] === NOT_A_NUMBER) return NaN;
    return values[at] / 127 * scales[2 * instance + (this.flags(at) & SPECIAL)];
  }

  text(instance) {
    if (this.texts[instance] === undefined) {
      let text = "";
      for (let at = this.offsets[instance]; at < this.offsets[instance + 1]; at++) {
        if (this.flags(at) & SPECIAL) continue;
        text += (this.flags(at) & GLUED ? "" : " ") + this.token(at);
      }
      this.texts[instance] = `${this.ids[instance]} ${text}`.toLowerCase();
    }
    return this.texts[instance];
  }

  className(instance, number) {
    if (number === null) return "unknown";
    return this.contrast?.[instance]?.[number] ?? this.classes[number] ?? String(number);
  }
}

function shown(score) {
  return Number.isNaN(score) ? "not a number" : String(Number(score.toPrecision(3)));
}

/* From a score to a colour: a class, and how strong it is from 0 to 1. */
function colouring(corpus, method, instance, fromLowest) {
  let low = Infinity, high = -Infinity, most = 0;
  for (let at = corpus.offsets[instance]; at < corpus.offsets[instance + 1]; at++) {
    const score = corpus.score(method, instance, at);
    if (corpus.flags(at) & SPECIAL || Number.isNaN(score)) continue;
    low = Math.min(low, score);
    high = Math.max(high, score);
    most = Math.max(most, Math.abs(score));
  }
  const bottom = fromLowest ? low : 0;
  return (score) => {
    const share = method.signed ? Math.abs(score) / most : (score - bottom) / (high - bottom);
    const strength = Math.max(0, Math.min(1, Number.isFinite(share) ? share : 0));
    return [method.signed ? (score < 0 ? "neg" : "pos") : "seq", strength];
  };
}

function drawTokens(place, corpus, method, instance, view) {
  const colour = method ? colouring(corpus, method, instance, view.fromLowest) : null;
  for (let at = corpus.offsets[instance]; at < corpus.offsets[instance + 1]; at++) {
    const special = corpus.flags(at) & SPECIAL;
    if (special && !view.special) continue;
    if (!(corpus.flags(at) & GLUED) && place.childNodes.length) place.append(" ");
    const span = element("span", special ? "t s" : "t", corpus.token(at));
    if (corpus.rationale?.[at]) span.classList.add("r");
    if (colour) {
      const score = corpus.score(method, instance, at);
      span.title = `${corpus.token(at)}: ${shown(score)}`;
      if (Number.isNaN(score)) {
        span.classList.add("nan");
      } else {
        const [name, strength] = colour(score);
        span.classList.add(name);
        span.style.setProperty("--a", strength.toFixed(3));
      }
    }
    place.append(span);
  }
}

function drawRow(corpus, method, instance, view) {
  const row = element("div", "row");
  const name = element("span", "name", method ? method.name : "text");
  name.title = name.textContent;
  const tokens = element("span", "tokens");
  if (method && !corpus.has(method, instance)) {
    row.classList.add("lacking");
    tokens.textContent = "no scores";
  } else {
    drawTokens(tokens, corpus, method, instance, view);
  }
  row.append(name, tokens);
  return row;
}

/* The numbers of a picture's file, four a pixel. */
async function pixelsOf(file) {
  const image = new Image();
  image.src = `data:image/png;base64,${file}`;
  await image.decode();
  const canvas = element("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/* Strengths of patches, row by row, between their middles: a number a pixel. */
function enlarged(patches, [rows, columns], width, height) {
  const places = (count, size) => Array.from({ length: size }, (_, at) => {
    const place = Math.max(0, Math.min(count - 1, ((at + 0.5) * count) / size - 0.5));
    const first = Math.floor(place);
    return [first, Math.min(first + 1, count - 1), place - first];
  });
  const across = places(columns, width);
  return places(rows, height).flatMap(([top, bottom, down]) => across.map(([left, right, over]) => {
    const between = (row) => patches[row * columns + left]
      + over * (patches[row * columns + right] - patches[row * columns + left]);
    return between(top) + down * (between(bottom) - between(top));
  }));
}

/* Lays strengths over a picture, and a line around its mask; the same as pictures/drawing.py. */
function layOver(pixels, strengths, signed, ink) {
  const { data } = pixels;
  strengths.forEach((strength, at) => {
    const start = 4 * at;
    const grey = 0.299 * data[start] + 0.587 * data[start + 1] + 0.114 * data[start + 2];
    const colour = strength < 0 ? ink.negative : signed ? ink.positive : ink.unsigned;
    for (let part = 0; part < 3; part++) {
      const seen = data[start + part] + ink.faded * (grey - data[start + part]);
      data[start + part] = seen + ink.opaque * Math.abs(strength) * (colour[part] - seen);
    }
  });
}

function drawLine(pixels, mask, ink) {
  const { width, height, data } = pixels;
  const inside = (x, y) => x >= 0 && y >= 0 && x < width && y < height
    && mask.data[4 * (y * width + x)] > 127;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const beside = inside(x - 1, y) || inside(x + 1, y) || inside(x, y - 1) || inside(x, y + 1);
      if (beside && !inside(x, y)) data.set(ink.line, 4 * (y * width + x));
    }
  }
}

async function drawMap(canvas, corpus, method, instance, patches, view) {
  const { files, masks, grids, ink } = corpus.pictures;
  const pixels = await pixelsOf(files[instance]);
  if (method) {
    const colour = colouring(corpus, method, instance, view.fromLowest);
    const strengths = patches.map((at) => {
      const score = corpus.score(method, instance, at);
      if (Number.isNaN(score)) return 0;
      const [name, strength] = colour(score);
      return name === "neg" ? -strength : strength;
    });
    layOver(pixels, enlarged(strengths, grids[instance], pixels.width, pixels.height),
      method.signed, ink);
    if (masks[instance]) drawLine(pixels, await pixelsOf(masks[instance]), ink);
  }
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  canvas.classList.toggle("coarse", pixels.width < 80);
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  canvas.dataset.drawn = "yes";
}

/* What stands under the pointer, and its score. */
function tellScores(canvas, corpus, method, instance, patches) {
  const [rows, columns] = corpus.pictures.grids[instance];
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const place = (at, size, count) => Math.max(0, Math.min(count - 1, Math.floor((at / size) * count)));
    const row = place(event.clientY - box.top, box.height, rows);
    const column = place(event.clientX - box.left, box.width, columns);
    const at = patches[row * columns + column];
    canvas.title = `${corpus.token(at)}: ${shown(corpus.score(method, instance, at))}`;
  });
}

/* A picture as the model saw it, and with the map of each method over it. */
function drawMaps(corpus, instance, view) {
  const maps = element("div", "maps");
  const patches = [];
  for (let at = corpus.offsets[instance]; at < corpus.offsets[instance + 1]; at++) {
    if (!(corpus.flags(at) & SPECIAL)) patches.push(at);
  }
  for (const method of [null, ...view.methods]) {
    const figure = element("figure");
    const name = method ? method.name : "picture";
    if (method && !corpus.has(method, instance)) {
      figure.className = "lacking";
      figure.append(element("figcaption", "", `${name}: no scores`));
    } else {
      const canvas = element("canvas");
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", method ? `map of ${name}` : name);
      const caption = element("figcaption");
      // A long name breaks where its parts do.
      name.split(/(?<=_)/).forEach((part) => caption.append(part, element("wbr")));
      figure.append(canvas, caption);
      drawMap(canvas, corpus, method, instance, patches, view);
      if (method) tellScores(canvas, corpus, method, instance, patches);
    }
    maps.append(figure);
  }
  return maps;
}

function drawHead(corpus, instance) {
  const head = element("div", "card-head");
  const label = corpus.label[instance], prediction = corpus.prediction[instance];
  const say = (name, value, className = "value") => {
    const part = element("span", "", `${name} `);
    part.append(element("span", className, value));
    head.append(part);
  };
  const name = element("a", "id", corpus.ids[instance]);
  name.href = `#instance=${encodeURIComponent(corpus.ids[instance])}`;
  name.title = "link to this instance";
  head.append(name);
  const correct = corpus.correct[instance];
  const sure = corpus.probability[instance];
  const percent = sure === null ? "" : ` (${(100 * sure).toFixed(1)} %)`;
  say("predicted", corpus.className(instance, prediction) + percent, correct === 0 ? "wrong" : "value");
  if (label !== null) say("label", corpus.className(instance, label));
  if (correct !== null) say("", correct ? "✓ right" : "✗ wrong", correct ? "value" : "wrong");
  const subset = corpus.subset[instance];
  if (subset !== null) say("subset", corpus.subsets[subset]);
  if (corpus.truncated.includes(instance)) say("", "truncated");
  return head;
}

/* A tree as nested lists. Its rows come parents first: token, index of the parent's row, layer,
   attribution. */
function drawTree(corpus, instance, rows) {
  const lists = [];
  const top = element("ul");
  rows.forEach(([token, parent, layer, attribution], index) => {
    const item = element("li");
    item.append(element("span", "t", corpus.token(corpus.offsets[instance] + token)));
    if (parent !== null) {
      item.append(element("span", "edge", ` layer ${layer}, ${shown(attribution)}`));
    }
    const own = element("ul");
    item.append(own);
    lists[index] = own;
    (parent === null ? top : lists[parent]).append(item);
  });
  return top;
}

function drawTrees(corpus, instance) {
  return (corpus.trees[instance] ?? []).map(([method, algorithm, rows]) => {
    const details = element("details", "tree");
    const label = `attribution tree: ${method}, ${algorithm}`;
    details.append(element("summary", "", label));
    details.addEventListener("toggle", () => {
      if (details.open && details.childNodes.length === 1) {
        details.append(drawTree(corpus, instance, rows));
      }
    });
    return details;
  });
}

class Browser {
  constructor(corpus) {
    this.corpus = corpus;
    this.page = 0;
    this.found = [];
    this.list = byId("instances");
    this.observer = new IntersectionObserver((entries) => {
      entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => this.fill(target));
    }, { rootMargin: "600px" });
    this.addChoices();
    this.listen();
    this.search();
    addEventListener("hashchange", () => this.follow());
    this.follow();
  }

  addChoices() {
    const { corpus } = this;
    const offer = (id, values, name) => {
      const select = byId(id);
      values.forEach((value) => {
        const option = element("option", "", name(value));
        option.value = String(value);
        select.append(option);
      });
      select.closest("label").hidden = values.length < 1;
    };
    const distinct = (column) => [...new Set(column)].filter((v) => v !== null).sort((a, b) => a - b);
    const named = (number) => corpus.classes[number] ?? String(number);
    offer("by-label", distinct(corpus.label), named);
    offer("by-prediction", distinct(corpus.prediction), named);
    offer("by-subset", corpus.subsets.map((_, at) => at), (at) => corpus.subsets[at]);
    offer("by-method", corpus.methods.map((_, at) => at), (at) => corpus.methods[at].name);
    byId("by-correct").closest("label").hidden = corpus.correct.every((value) => value === null);
    corpus.methods.forEach((method, at) => {
      const label = element("label");
      const box = element("input");
      box.type = "checkbox";
      // They come the most faithful first; all at once would be a screen for each instance.
      box.checked = box.defaultChecked = at < FIRST;
      box.value = String(at);
      label.append(box, method.name);
      byId("methods").append(label);
    });
    this.boxes = [...byId("methods").querySelectorAll("input")];
  }

  listen() {
    const form = byId("filters");
    const searches = new Set(["search", "by-label", "by-prediction", "by-correct", "by-subset",
      "by-method", "order"]);
    let waiting = 0;
    form.addEventListener("input", (event) => {
      clearTimeout(waiting);
      const again = () => (searches.has(event.target.id) ? this.search() : this.draw());
      // A text is searched for when the typing pauses.
      if (event.target.id === "search") waiting = setTimeout(again, 120);
      else again();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(() => this.search()));
    for (const [id, on] of [["all", true], ["none", false]]) {
      byId(id).addEventListener("click", () => {
        this.boxes.forEach((box) => { box.checked = on; });
        this.draw();
      });
    }
    const turn = (by) => () => {
      this.page += by;
      this.draw();
      byId("count").scrollIntoView({ block: "center" });
    };
    document.querySelectorAll(".before").forEach((b) => b.addEventListener("click", turn(-1)));
    document.querySelectorAll(".after").forEach((b) => b.addEventListener("click", turn(1)));
  }

  /* Shows the one instance that the address names. */
  follow() {
    const named = /^#instance=(.*)$/.exec(location.hash);
    let at = -1;
    try { at = this.corpus.ids.indexOf(decodeURIComponent(named?.[1] ?? "")); } catch { /* no name */ }
    if (at < 0) return;
    this.found = [at];
    this.page = 0;
    this.draw();
    byId("browser").scrollIntoView();
  }

  search() {
    const { corpus } = this;
    const wanted = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
    const chosen = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
    const [label, prediction, correct, subset, method] =
      ["by-label", "by-prediction", "by-correct", "by-subset", "by-method"].map(chosen);
    const fits = (column, value, at) => value === null || column[at] === value;
    this.found = [...corpus.ids.keys()].filter((at) => fits(corpus.label, label, at)
      && fits(corpus.prediction, prediction, at) && fits(corpus.correct, correct, at)
      && fits(corpus.subset, subset, at)
      && (method === null || corpus.has(corpus.methods[method], at))
      && (!wanted || corpus.text(at).includes(wanted)));
    const keys = {
      least: (at) => corpus.probability[at] ?? 0, most: (at) => -(corpus.probability[at] ?? 0),
      longest: (at) => -corpus.lengths[at],
    };
    const key = keys[byId("order").value];
    if (key) this.found.sort((a, b) => key(a) - key(b) || a - b);
    this.page = 0;
    this.draw();
  }

  draw() {
    const count = this.found.length;
    const last = Math.max(0, Math.ceil(count / PAGE) - 1);
    this.page = Math.max(0, Math.min(this.page, last));
    const start = this.page * PAGE;
    const end = Math.min(count, start + PAGE);
    byId("count").textContent = count
      ? `${start + 1}–${end} of ${count} instances` : "No instance fits.";
    document.querySelectorAll(".before").forEach((b) => { b.disabled = this.page === 0; });
    document.querySelectorAll(".after").forEach((b) => { b.disabled = this.page === last; });
    const checked = this.boxes.filter((box) => box.checked);
    byId("chosen").textContent = `(${checked.length} of ${this.boxes.length})`;
    this.view = {
      methods: checked.map((box) => this.corpus.methods[Number(box.value)]),
      special: byId("special").checked, fromLowest: byId("colours").value === "range",
    };
    this.observer.disconnect();
    const cards = this.found.slice(start, end).map((instance) => {
      const card = element("li");
      card.dataset.instance = String(instance);
      card.append(drawHead(this.corpus, instance));
      // About as high as it will be, so that only what is seen is filled.
      const lines = 1 + Math.floor(this.corpus.lengths[instance] / 28);
      card.style.minHeight = `${45 + 27 * lines * Math.max(1, this.view.methods.length)}px`;
      return card;
    });
    this.list.replaceChildren(...cards);
    cards.forEach((card) => this.observer.observe(card));
  }

  fill(card) {
    this.observer.unobserve(card);
    const instance = Number(card.dataset.instance);
    const { methods } = this.view;
    if (this.corpus.pictures?.files[instance]) {
      card.append(drawMaps(this.corpus, instance, this.view), ...drawTrees(this.corpus, instance));
      card.style.minHeight = "";
      return;
    }
    const rows = methods.length ? methods : [null];
    card.append(...rows.map((method) => drawRow(this.corpus, method, instance, this.view)));
    card.append(...drawTrees(this.corpus, instance));
    card.style.minHeight = "";
  }
}

// Start ---------------------------------------------------------------------------------------

startTheme();
document.querySelectorAll("table[data-sortable]").forEach(makeSortable);
document.querySelectorAll("table[data-sortable]").forEach(offerCopies);
const figures = parsed("figures-data");
document.querySelectorAll(".figure").forEach((place) => startFigure(place, figures[place.dataset.figure]));
if (byId("instances-data")) new Browser(new Corpus(parsed("instances-data")));
addEventListener("DOMContentLoaded", () => { document.documentElement.dataset.ready = "yes"; });
