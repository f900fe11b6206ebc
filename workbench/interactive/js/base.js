// What the functions of all kinds share. Each kind is one statement: views.KIND = (root, data, send, state) => { … };
// root is an empty element; send(payload) reports a gesture (a saved page ignores it); state is kept between drawings.
const views = {};

// Return an element; attributes that are null or false are left out, functions are listeners, children may be text.
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);

// Return an SVG element, in the same way.
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
};

// Show a token as people read it: white space is made visible.
const visible = (token) => token.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ /, "·") || "∅";

const percent = (p) => (p >= 0.0995 ? `${Math.round(100 * p)} %` : p >= 0.001 ? `${(100 * p).toFixed(1)} %` : "< 0.1 %");

// Return a color between blue (-1), the card (0) and orange (1), as a value of background-color.
const diverging = (x) => {
  const share = Math.round(Math.min(1, Math.abs(x)) * 100);
  return `color-mix(in srgb, ${x < 0 ? "var(--wb-less)" : "var(--wb-more)"} ${share}%, transparent)`;
};

// Return a color between the card (0) and the strongest blue (1).
const sequential = (x) => `color-mix(in srgb, var(--wb-strong) ${Math.round(Math.max(0, Math.min(1, x)) * 100)}%, transparent)`;

// Move the focus among cells of a grid by the arrow keys, Home and End; cells carry data-row and data-column.
const moveInGrid = (event, root) => {
  const cell = event.target.closest("[data-row]");
  if (!cell) return;
  let [row, column] = [Number(cell.dataset.row), Number(cell.dataset.column)];
  if (event.key === "ArrowDown") row += 1;
  else if (event.key === "ArrowUp") row -= 1;
  else if (event.key === "ArrowRight") column += 1;
  else if (event.key === "ArrowLeft") column -= 1;
  else if (event.key === "Home") column = 0;
  else if (event.key === "End") column = Math.max(...[...root.querySelectorAll(`[data-row="${row}"]`)].map((c) => Number(c.dataset.column)));
  else return;
  const next = root.querySelector(`[data-row="${row}"][data-column="${column}"]`);
  event.preventDefault();
  if (next) {
    cell.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }
};

// Draw a view into an element; the focus stays on the element with the same data-key.
const draw = (root, view, send, state) => {
  const focused = root.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  root.replaceChildren();
  if (!Object.hasOwn(views, view.kind)) return;
  views[view.kind](root, view.data, send, state);
  if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
};

// Fill the widget of a cell or panel; its trait `view` is what it shows, `gesture` what the user did last.
const renderWidget = ({ model, el }) => {
  const state = {};
  let gestures = 0;
  el.classList.add("wb-view");
  const send = (payload) => {
    gestures += 1;
    model.set("gesture", { ...payload, number: gestures });
    model.save_changes();
  };
  const redraw = () => draw(el, model.get("view"), send, state);
  model.on("change:view", redraw);
  redraw();
  return () => model.off("change:view", redraw);
};

// Draw all views of a saved page in place of their fallbacks.
const drawPage = (page) => {
  for (const element of page.querySelectorAll(".wb-view")) {
    const source = element.querySelector('script[type="application/json"]');
    if (source) draw(element, JSON.parse(source.textContent), () => {}, {});
  }
};
