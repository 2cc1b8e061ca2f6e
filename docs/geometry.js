// The picture of the method page to play with: drag g and r, choose a rule and a weight. The page
// has the picture geometry.png and an empty element `geometry` after it, which this replaces.
"use strict";

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

// The rules of optax_dtnh/_rules.py: how much of r to keep, and how much of g to take away.
const RULES = {
  truncate: (rg) => [1, Math.min(rg, 0)],
  orthogonal: (rg) => [1, rg],
  drop: (rg) => [rg < 0 ? 0 : 1, 0],
  cosine: (rg, gg, rr) => [Math.max(cosine(rg, gg, rr), 0), 0],
  plain: () => [1, 0],
};

function cosine(rg, gg, rr) {
  return gg && rr ? rg / Math.sqrt(gg) / Math.sqrt(rr) : 0;
}

function applyRule(name, r, g) {
  const gg = dot(g, g);
  const [keep, along] = RULES[name](dot(r, g), gg, dot(r, r));
  return r.map((x, i) => keep * x - (gg ? along / gg : 0) * g[i]);
}

const UNIT = 62; // pixels
const CENTER = [210, 165];
const REACH = [3, 2.3]; // how far a handle goes from the center
const FAR = 20; // beyond the picture's edge

const pixels = ([x, y]) => [CENTER[0] + UNIT * x, CENTER[1] - UNIT * y];
const number = (x) => (Math.abs(x) < 0.005 ? 0 : x).toFixed(2);

const FIGURE = `
<svg viewBox="0 0 420 330" role="group" aria-label="The gradients g and r in the plane">
  <path class="agree"/><path class="descend"/><path class="edge"/><path class="edge descend-edge"/>
  <path class="guide"/>
  <g class="arrow update"><path/><text>update</text></g>
  <g class="arrow before"><path/><text>r</text></g>
  <g class="arrow g"><path/><text>g</text></g>
  <g class="arrow kept"><path/><text>r'</text></g>
  <circle class="handle" data-name="g" r="20" tabindex="0" role="slider"/>
  <circle class="handle" data-name="r" r="20" tabindex="0" role="slider"/>
</svg>
<p class="controls">
  <label>rule <select>${Object.keys(RULES).map((name) => `<option>${name}</option>`).join("")}
  </select></label>
  <label>weight <input type="range" min="0" max="2" step="0.1" value="1"> <output></output></label>
</p>
<table>
  <tr><th scope="row"><code>&lt;r, g&gt;</code></th><td></td><td></td></tr>
  <tr><th scope="row"><code>cos(r, g)</code></th><td></td><td></td></tr>
  <tr><th scope="row"><code>&lt;update, g&gt; / &lt;g, g&gt;</code></th><td></td><td></td></tr>
</table>
<figcaption>Drag the ends of <code>g</code> and <code>r</code>, or focus one and use the arrow keys.
  The update is <code>g + weight * r'</code>. Gray: <code>&lt;x, g&gt; &gt;= 0</code>. Darker:
  <code>&lt;x, g&gt; &gt;= &lt;g, g&gt;</code>. The last row compares how fast
  the loss falls, to first order, in a step along <code>-update</code> and along <code>-g</code>.
</figcaption>`;

function start(place) {
  const figure = document.createElement("figure");
  figure.className = "geometry";
  figure.innerHTML = FIGURE;
  const state = { g: [0, 1], r: [1.3, -0.9] };
  const update = () => show(figure, state);
  for (const handle of figure.querySelectorAll(".handle")) {
    movable(handle, (point) => { state[handle.dataset.name] = point; update(); }, state);
  }
  figure.querySelector("select").addEventListener("change", update);
  figure.querySelector("input").addEventListener("input", update);
  place.previousElementSibling.remove(); // the picture
  place.replaceWith(figure);
  update();
}

function movable(handle, move, state) {
  // Rounded, so that the keys reach 0 and right angles exactly.
  const round = (x) => Math.round(100 * x) / 100;
  const inside = (point) => point.map((x, i) => Math.min(Math.max(round(x), -REACH[i]), REACH[i]));
  // `touch-action` does not hold inside of an SVG everywhere: the page would scroll.
  handle.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
  handle.addEventListener("pointerdown", (event) => handle.setPointerCapture(event.pointerId));
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const at = new DOMPoint(event.clientX, event.clientY);
    const { x, y } = at.matrixTransform(handle.ownerSVGElement.getScreenCTM().inverse());
    move(inside([(x - CENTER[0]) / UNIT, (CENTER[1] - y) / UNIT]));
  });
  const keys = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
  handle.addEventListener("keydown", (event) => {
    const by = keys[event.key];
    if (!by) return;
    event.preventDefault(); // the page would scroll
    move(inside(state[handle.dataset.name].map((x, i) => x + 0.1 * by[i])));
  });
}

function show(figure, { g, r }) {
  const one = (selector) => figure.querySelector(selector);
  const weight = Number(one("input").value);
  const kept = applyRule(one("select").value, r, g);
  const update = g.map((x, i) => x + weight * kept[i]);
  const vectors = { g, r, "r'": kept, update };
  const parallel = Math.abs(kept[0] * r[1] - kept[1] * r[0]) < 1e-9;
  const aside = parallel && !near(kept, r) ? [-kept[1], kept[0]] : kept; // not on the arrow of r
  arrow(one(".g"), g, nameOf("g", vectors));
  arrow(one(".before"), r, nameOf("r", vectors));
  arrow(one(".kept"), kept, nameOf("r'", vectors), aside);
  arrow(one(".update"), update, nameOf("update", vectors));
  halfPlane(one(".agree"), one(".edge"), g, 0);
  halfPlane(one(".descend"), one(".descend-edge"), g, 1);
  one(".guide").setAttribute("d", `M${pixels(r)}L${pixels(kept)}M${pixels(g)}L${pixels(update)}`);
  for (const [name, point] of Object.entries({ g, r })) {
    handleAt(one(`[data-name=${name}]`), name, point);
  }
  one("output").value = weight.toFixed(1);
  report(figure, g, r, update);
}

const near = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) < 1e-9;

// The first of several equal vectors has the names of all, as in "r = r'".
function nameOf(name, vectors) {
  const equal = Object.keys(vectors).filter((other) => near(vectors[other], vectors[name]));
  return equal[0] === name ? equal.join(" = ") : "";
}

function handleAt(handle, name, point) {
  const [x, y] = pixels(point);
  const angle = Math.round((Math.atan2(point[1], point[0]) * 180) / Math.PI);
  const where = `x ${number(point[0])}, y ${number(point[1])}`;
  const about = { "aria-label": name, "aria-valuemin": -180, "aria-valuemax": 180 };
  const now = { cx: x, cy: y, "aria-valuenow": angle, "aria-valuetext": where };
  for (const [key, value] of Object.entries({ ...about, ...now })) handle.setAttribute(key, value);
}

function arrow(group, vector, name, toward = vector) {
  const [x, y] = pixels(vector);
  const [path, text] = group.children;
  const [u, v] = onScreen(vector);
  const head = [-1, 1].map((side) => [x - 9 * u - 5 * side * v, y - 9 * v + 5 * side * u]);
  const dotted = UNIT * Math.hypot(...vector) < 3;
  const tip = dotted ? `M${x - 2},${y}h4` : `M${head[0]}L${x},${y}L${head[1]}`;
  path.setAttribute("d", `M${CENTER}L${x},${y}${tip}`);
  text.textContent = name;
  label(text, x, y, ...onScreen(toward));
}

// The direction of a vector on the screen; down for 0, so that its name is below the dot.
function onScreen(vector) {
  const length = Math.hypot(...vector);
  return length ? [vector[0] / length, -vector[1] / length] : [0, 1];
}

// Write beyond the tip, or beside it where the picture ends.
function label(text, x, y, u, v) {
  const [left, base] = [x + 26 * u, y + 26 * v + 5];
  const inside = Math.min(Math.max(base, 18), 322);
  const beside = inside === base ? 0 : 12;
  const width = 9.2 * text.textContent.length;
  const end = left + width > 412 || (left > width + 8 && (beside || u < -0.3));
  text.setAttribute("x", Math.min(Math.max(left + (end ? -beside : beside), 8), 412));
  text.setAttribute("y", inside);
  text.setAttribute("text-anchor", end ? "end" : u > 0.3 || left < width ? "start" : "middle");
}

// Fill the x with <x, g> >= part * <g, g>, and draw the edge; without a g there is none.
function halfPlane(area, edge, g, part) {
  const length = Math.hypot(...g);
  const [u, v] = length ? [g[0] / length, g[1] / length] : [0, 0];
  const at = (across, along) =>
    pixels([part * g[0] - across * v + along * u, part * g[1] + across * u + along * v]);
  const line = `M${at(-FAR, 0)}L${at(FAR, 0)}`;
  edge.setAttribute("d", length ? line : "");
  area.setAttribute("d", length ? `${line}L${at(FAR, FAR)}L${at(-FAR, FAR)}Z` : "");
}

function report(figure, g, r, update) {
  const [rg, gg] = [dot(r, g), dot(g, g)];
  const share = gg && dot(update, g) / gg;
  const close = 1e-9;
  const rows = [
    [number(rg), rg < -close ? "conflict" : rg > close ? "agreement" : "orthogonal"],
    [number(cosine(rg, gg, dot(r, r))), ""],
    gg ? [number(share), share < -close ? "the loss rises"
      : share < 1 - close ? "slower"
      : "at least as fast"] : ["–", "g is 0: nothing to protect"],
  ];
  figure.querySelectorAll("tr").forEach((row, i) => {
    [row.cells[1].textContent, row.cells[2].textContent] = rows[i];
  });
}

if (typeof document === "undefined") module.exports = { applyRule };
else if (document.getElementById("geometry")) start(document.getElementById("geometry"));
