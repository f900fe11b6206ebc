// The health of a model during a sequence. data: edits [subject, …]; series [{name, rows [{edits, factor, locality,
// reliability, kl}]}]; jumps [[edit, text], …]; retention {facts [text], edits [number], values [[0 to 1 or null]]}.
views.health = (root, data, send, state) => {
  const lines = (column) => data.series.map(({ name, rows }) => ({ name, points: rows.map((row) => [row.edits, row[column] ?? NaN]) }));
  const charts = [
    ["factor", "perplexity / unedited", { log: true, include: [1, 1.5] }],
    ["locality", "neighbors answered as before", { low: 0, high: 1 }],
  ];
  const strip = h("div", { class: "wb-health-strip" });
  for (const [column, label, axis] of charts) {
    const place = h("div", {});
    state[column] ??= {};
    views.curves(place, { label: `${label}, by number of edits`, key: `health-${column}`, x: { label: "edits", whole: true }, y: { label, ...axis }, width: 440, height: 250,
      series: lines(column), marks: data.jumps }, () => {}, state[column]);
    strip.append(place);
  }
  root.append(strip);
  if (data.jumps.length) {
    root.append(h("p", { class: "wb-health-jumps" }, h("b", {}, "Edits that stand out (red): "), data.jumps.map(([, text]) => text).join("; ")));
  }
  const { facts, edits, values } = data.retention;
  if (!facts.length) return;
  const name = (row, column) => {
    const value = values[row][column];
    return `${facts[row]}, after edit ${edits[column]}: ${value === null ? "not edited yet" : `reliability ${value.toFixed(2)}`}`;
  };
  const reading = h("div", { class: "wb-small", "aria-live": "polite" }, "Move over the cells, or with the arrow keys, to read them.");
  const show = (event) => {
    const cell = event.target.closest("[data-row]");
    if (cell) reading.textContent = name(Number(cell.dataset.row), Number(cell.dataset.column));
  };
  const cell = (row, column) => {
    const value = values[row][column];
    const element = h("td", { class: value === null ? "wb-health-none" : "wb-health-cell", role: "gridcell", "data-row": row, "data-column": column,
      "data-key": `health-${row}-${column}`, tabindex: row || column ? "-1" : "0", "aria-label": name(row, column) },
      value === null ? "" : value >= 0.995 ? "1" : value < 0.005 ? "0" : value.toFixed(2).slice(1));
    if (value !== null) {
      element.style.setProperty("background-color", sequential(value / 2)); // darker, and text would not stand out
    }
    return element;
  };
  const head = h("tr", {}, h("th", { scope: "col" }, "fact \\ edits"), edits.map((edit) => h("th", { scope: "col" }, String(edit))));
  const body = facts.map((fact, row) => h("tr", {}, h("th", { scope: "row" }, `${row + 1} ${fact}`), edits.map((_, column) => cell(row, column))));
  const grid = h("table", { class: "wb-health-grid", role: "grid", "aria-label": "Reliability of each fact after each edit",
    keydown: (event) => moveInGrid(event, grid), focusin: show, pointerover: show }, h("thead", {}, head), h("tbody", {}, body));
  root.append(h("h3", {}, "Which facts are still held?"), h("div", { class: "wb-scroll" }, grid), reading);
};
