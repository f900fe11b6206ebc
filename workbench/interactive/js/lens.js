// Grid of layers (downwards from the last one) and tokens; lines of the watched tokens at the chosen token.
views.lens = (root, data, send, state) => {
  const width = data.tokens.length;
  const [before, after] = data.sides;
  const modes = after ? [["before", "Before"], ["after", "After"], ["difference", "Difference"]] : [["before", "Unedited model"]];
  if (!modes.some(([name]) => name === state.mode)) state.mode = after ? "after" : "before";
  if (!(state.position < width)) state.position = width - 1;
  const name = (layer) => (layer < 0 ? "embedding" : `layer ${layer}`);

  // tokens of a cell as [word, probability], most probable first
  const listed = (side, index) => {
    const cell = side.cells[index];
    return Array.from({ length: cell.length / 2 }, (_, i) => [data.words[cell[2 * i]], cell[2 * i + 1] / 1000]);
  };
  const probability = (side, index, word) => listed(side, index).find(([each]) => each === word)?.[1] ?? 0;
  const watchedAt = (side, which, index) => 10 ** side.watched[which][index];

  // color, text and description of a cell
  const read = (index) => {
    const side = state.mode === "before" || !after ? before : after;
    const [word, p] = listed(side, index)[0];
    if (state.mode !== "difference") {
      const shown = state.pin === undefined ? p : probability(side, index, state.pin);
      const pinned = state.pin === undefined ? "" : `, ${visible(state.pin)} ${percent(shown)}`;
      return { word, color: sequential(shown / 2), label: `${visible(word)} ${percent(p)}${pinned}` };
    }
    const change =
      state.pin === undefined
        ? watchedAt(after, 0, index) - watchedAt(before, 0, index)
        : probability(after, index, state.pin) - probability(before, index, state.pin);
    const [old] = listed(before, index)[0];
    const points = `${change < 0 ? "−" : "+"}${(100 * Math.abs(change)).toFixed(1)} points`;
    const turned = old === word ? visible(word) : `${visible(old)} → ${visible(word)}`;
    return { word, changed: old !== word, color: diverging(0.45 * change), label: `${turned}, ${points}` };
  };

  const choose = (index) => {
    state.position = index % width;
    const [word] = listed(state.mode === "before" || !after ? before : after, index)[0];
    state.pin = state.pin === word ? undefined : word;
    redraw();
    send({ layer: data.layers[Math.floor(index / width)], position: state.position, token: state.pin ?? null });
  };
  const redraw = () => draw(root, { kind: "lens", data }, send, state);

  const toggles = modes.map(([mode, title]) =>
    h("button", {
      type: "button", "aria-pressed": String(state.mode === mode), "data-key": `mode-${mode}`,
      click: () => { state.mode = mode; redraw(); },
    }, title));
  const unpin = state.pin === undefined ? null
    : h("button", { type: "button", "data-key": "unpin", click: () => { state.pin = undefined; redraw(); } }, "Unpin");
  const what = state.mode === "difference"
    ? `Color: change of the probability of ${state.pin === undefined ? `the ${data.watched[0]?.label ?? ""}` : visible(state.pin)}, from blue (falls) to orange (rises).`
    : `Color: probability of ${state.pin === undefined ? "the token in the cell" : visible(state.pin)}. A click on a cell pins its token.`;

  const cellOf = (row, column) => {
    const index = row * width + column;
    const { word, color, label, changed } = read(index);
    const shownRow = data.layers.length - 1 - row;
    const isFocus = row === data.layers.length - 1 && column === state.position;
    const cell = h("td", {
      role: "gridcell", tabindex: isFocus ? "0" : "-1", "data-row": shownRow, "data-column": column,
      "data-key": `cell-${row}-${column}`, title: `${name(data.layers[row])}, after ${visible(data.tokens[column])}: ${label}`,
      "aria-label": `${name(data.layers[row])}, after ${visible(data.tokens[column])}: ${label}`,
      "aria-selected": String(word === state.pin),
      class: `${column === state.position ? "wb-lens-chosen" : ""} ${changed ? "wb-lens-changed" : ""} ${word === state.pin ? "wb-lens-pinned" : ""}`,
      click: () => choose(index),
      keydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(index); } },
    }, visible(word));
    cell.style.setProperty("background-color", color);
    return cell;
  };
  const rows = data.layers.map((layer, row) =>
    h("tr", { role: "row" }, h("th", { scope: "row" }, layer < 0 ? "emb." : String(layer)),
      data.tokens.map((_, column) => cellOf(row, column)))).reverse();
  const head = h("tr", { role: "row" }, h("th", { scope: "col" }, "layer"),
    data.tokens.map((token, column) =>
      h("th", { scope: "col", class: column === state.position ? "wb-lens-chosen" : null, title: token }, visible(token))));
  const grid = h("table", {
    role: "grid", class: "wb-lens-grid", "aria-label": "What the state of each token predicts after each layer",
    keydown: (event) => moveInGrid(event, root),
  }, h("thead", null, head), h("tbody", null, rows));

  const scroll = h("div", {
    class: "wb-lens-scroll", scroll: () => { state.left = scroll.scrollLeft; state.top = scroll.scrollTop; },
  }, grid);
  root.append(
    h("div", { class: "wb-lens-bar" }, toggles, unpin, h("span", { class: "wb-lens-note" }, what)),
    h("div", { class: "wb-lens-parts" }, scroll, drawAnswers()));
  scroll.scrollLeft = state.left ?? scroll.scrollWidth; // the last token, which predicts the answer
  scroll.scrollTop = state.top ?? 0;

  function drawAnswers() {
    const [left, top, right, bottom, plotWidth, plotHeight, lowest] = [34, 8, 8, 30, 360, 220, -6];
    const x = (row) => left + (row / (data.layers.length - 1)) * (plotWidth - left - right);
    const y = (log) => top + (Math.max(lowest, Math.min(0, log)) / lowest) * (plotHeight - top - bottom);
    const ticks = [0, -2, -4, -6].flatMap((log) => [
      svg("line", { x1: left, x2: plotWidth - right, y1: y(log), y2: y(log), class: "wb-lens-rule" }),
      svg("text", { x: left - 4, y: y(log) + 4, "text-anchor": "end" }, ["1", "", "1 %", "", "10⁻⁴", "", "10⁻⁶"][-log]),
    ]);
    const layers = data.layers.flatMap((layer, row) => layer >= 0 && layer % 5 === 0
      ? [svg("text", { x: x(row), y: plotHeight - bottom + 14, "text-anchor": "middle" }, String(layer))] : []);
    const lines = data.watched.flatMap((_, which) => data.sides.map((side) =>
      svg("polyline", {
        class: `wb-lens-line wb-lens-line-${which % 4} ${side.name === "before" && after ? "wb-lens-old" : ""}`,
        points: data.layers.map((_, row) => `${x(row).toFixed(1)},${y(side.watched[which][row * width + state.position]).toFixed(1)}`).join(" "),
      })));
    const last = (data.layers.length - 1) * width + state.position;
    const legend = data.watched.map(({ label, word }, which) =>
      h("li", { class: `wb-lens-key wb-lens-key-${which % 4}` }, `${label} (${visible(data.words[word])}): `,
        data.sides.map((side) => percent(watchedAt(side, which, last))).join(" → ")));
    const title = `Probabilities after ${visible(data.tokens[state.position])}, through the layers${after ? " (dashed: before)" : ""}`;
    const picture = svg("svg", { viewBox: `0 0 ${plotWidth} ${plotHeight}`, role: "img", "aria-label": title },
      ticks, layers, svg("text", { x: (left + plotWidth) / 2, y: plotHeight - 2, "text-anchor": "middle" }, "layer"), lines);
    return h("figure", { class: "wb-lens-answers" }, h("figcaption", null, title), picture, h("ul", null, legend));
  }
};
