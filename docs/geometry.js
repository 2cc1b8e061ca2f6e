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
  the loss falls, to first order, in a step along <code>-update</code> and along <code>-g</code>.</figcaption>`;

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
  const inside = (point) => point.map((x, i) => Math.min(Math.max(x, -REACH[i]), REACH[i]));
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
  const same = Math.hypot(kept[0] - r[0], kept[1] - r[1]) < 1e-9;
  arrow(one(".g"), g, "g");
  arrow(one(".before"), r, same ? "" : "r");
  arrow(one(".kept"), kept, same ? "r = r'" : "r'");
  arrow(one(".update"), update, "update");
  halfPlane(one(".agree"), one(".edge"), g, 0);
  halfPlane(one(".descend"), one(".descend-edge"), g, 1);
  one(".guide").setAttribute("d", `M${pixels(r)}L${pixels(kept)}M${pixels(g)}L${pixels(update)}`);
  for (const [name, point] of [["g", g], ["r", r]]) handleAt(one(`[data-name=${name}]`), name, point);
  one("output").value = weight.toFixed(1);
  report(figure, g, r, update);
}

function handleAt(handle, name, point) {
  const [x, y] = pixels(point);
  const angle = Math.round((Math.atan2(point[1], point[0]) * 180) / Math.PI);
  const where = `x ${number(point[0])}, y ${number(point[1])}`;
  const about = { "aria-label": name, "aria-valuemin": -180, "aria-valuemax": 180 };
  const now = { cx: x, cy: y, "aria-valuenow": angle, "aria-valuetext": where };
  for (const [key, value] of Object.entries({ ...about, ...now })) handle.setAttribute(key, value);
}

function arrow(group, vector, name) {
  const length = Math.hypot(...vector);
  const [x, y] = pixels(vector);
  const [path, text] = group.children;
  // The direction on the screen; where the vector is 0, a dot and the name below it.
  const [u, v] = length ? [vector[0] / length, -vector[1] / length] : [0, 1];
  const head = [-1, 1].map((side) => [x - 9 * u - 5 * side * v, y - 9 * v + 5 * side * u]);
  const shaft = `M${CENTER}L${x},${y}`;
  const tip = UNIT * length < 3 ? `M${x - 2},${y}h4` : `M${head[0]}L${x},${y}L${head[1]}`;
  path.setAttribute("d", shaft + tip);
  text.textContent = name;
  const left = x + 26 * u;
  text.setAttribute("x", Math.min(Math.max(left, 8), 412));
  text.setAttribute("y", Math.min(Math.max(y + 26 * v + 5, 18), 322));
  const before = left > 340 || (u < -0.3 && left > 80);
  text.setAttribute("text-anchor", before ? "end" : u > 0.3 || left < 80 ? "start" : "middle");
}

// Fill the x with <x, g> >= part * <g, g>, and draw the edge; without a g there is none.
function halfPlane(area, edge, g, part) {
  const length = Math.hypot(...g);
  const [u, v] = length ? [g[0] / length, g[1] / length] : [0, 0];
  const at = (across, along) => pixels(g.map((x, i) => part * x + across * [-v, u][i] + along * [u, v][i]));
  edge.setAttribute("d", length ? `M${at(-FAR, 0)}L${at(FAR, 0)}` : "");
  area.setAttribute("d", length ? `M${at(-FAR, 0)}L${at(FAR, 0)}L${at(FAR, FAR)}L${at(-FAR, FAR)}Z` : "");
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
