// Schemes side by side: a table that header buttons sort; "Use" sends { row }. data: fact, target, stale, rows (method,
// settings, regularizer, accumulated, answer, reliability, generalization, locality and the same with _forced, kl,
// norm, relative_norm, risk, seconds, shared, error).
views.schemes = (root, data, send, state) => {
  const short = (x) => (x === null ? "–" : x === 0 ? "0" : Math.abs(x) < 0.001 ? x.toExponential(0).replace("-", "−") : x.toLocaleString("en", { maximumSignificantDigits: 2 }));
  const score = (row, name) => [
    h("b", null, row[name] === null ? "–" : row[name].toFixed(2)),
    row[`${name}_forced`] === null ? null : h("span", { class: "wb-schemes-small" }, ` ${row[`${name}_forced`].toFixed(2)} forced`),
  ];
  const risks = { low: "✓ low", high: "✗ high" };
  const columns = [
    { key: "method", title: "Scheme", text: true },
    { key: "answer", title: "Its own answer", text: true },
    { key: "reliability", title: "Reliability", cell: score },
    { key: "generalization", title: "Rephrasings", cell: score },
    { key: "locality", title: "Locality", cell: score },
    { key: "kl", title: "KL, nats", cell: (row) => short(row.kl) },
    { key: "relative_norm", title: "‖ΔW‖/‖W‖", cell: (row) => [short(row.relative_norm), h("span", { class: "wb-schemes-small" }, ` ‖ΔW‖ ${short(row.norm)}`)] },
    { key: "risk", title: "Risk", text: true, cell: (row) => h("span", { class: row.risk === "high" ? "wb-schemes-high" : null }, risks[row.risk] ?? "–") },
    { key: "seconds", title: "Seconds", cell: (row) => (row.shared ? "shared" : short(row.seconds)) },
  ];
  const order = data.rows.map((row, i) => i);
  if (state.column) {
    const { key, text } = columns.find((column) => column.key === state.column);
    const compare = (a, b) => (text ? String(a).localeCompare(String(b)) : a - b);
    order.sort((i, j) => {
      const [a, b] = [data.rows[i][key], data.rows[j][key]];
      if (a === null || b === null) return (a === null) - (b === null); // rows without a number stay last
      return state.descending ? compare(b, a) : compare(a, b);
    });
  }
  const sortBy = (key) => {
    state.descending = state.column === key ? !state.descending : ["reliability", "generalization", "locality"].includes(key);
    state.column = key;
    const focused = document.activeElement?.dataset.key;
    root.replaceChildren();
    views.schemes(root, data, send, state);
    if (focused) root.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  };
  const head = ({ key, title }) => {
    const sorted = state.column === key;
    const arrow = sorted ? (state.descending ? " ▼" : " ▲") : "";
    return h("th", { scope: "col", "aria-sort": sorted ? (state.descending ? "descending" : "ascending") : "none" },
      h("button", { type: "button", "data-key": `sort ${key}`, click: () => sortBy(key), title: `Sort by ${title}` }, title, h("span", { "aria-hidden": "true" }, arrow)));
  };
  const scheme = (row) => h("th", { scope: "row" }, h("b", null, row.method), row.settings ? `, ${row.settings}` : "",
    row.regularizer === "Unregularized" ? null : h("div", null, row.regularizer),
    row.accumulated === "Unregularized" ? null : h("div", null, `${row.accumulated} of the sum`));
  const body = order.map((i) => {
    const row = data.rows[i];
    if (row.error) return h("tr", null, scheme(row), h("td", { colspan: columns.length, class: "wb-schemes-error" }, `✗ ${row.error}`));
    return h("tr", null, scheme(row),
      h("td", null, row.answer === "" ? "∅" : row.answer),
      columns.slice(2).map((column) => h("td", null, column.cell(row, column.key))),
      h("td", { class: "wb-schemes-use" }, h("button", {
        type: "button", disabled: data.stale, "data-key": `use ${i}`, click: () => send({ row: i }),
        "aria-label": `Use ${row.method} ${row.settings}, ${row.regularizer}`,
      }, "Use")));
  });
  root.append(
    h("p", { class: "wb-schemes-fact" }, `${data.fact} … `, h("b", null, data.target)),
    data.stale ? h("p", { class: "wb-schemes-small", role: "status" }, "The edits have changed since; compare again to use a row.") : "",
    h("div", { class: "wb-scroll", tabindex: "0", role: "region", "aria-label": "Schemes side by side" },
      h("table", { class: "wb-schemes" },
        h("thead", null, h("tr", null, columns.map(head), h("th", { scope: "col", class: "wb-schemes-use" }, h("span", { class: "wb-schemes-hidden" }, "Use")))),
        h("tbody", null, body))),
    h("p", { class: "wb-schemes-small" }, "Scores in bold: the model answers by itself. “Forced”: share of the answer’s tokens that are the most probable, given the ones before. "
      + "KL: how far the predictions of the whole edited model are from the unedited ones, per token of other text."),
  );
};
