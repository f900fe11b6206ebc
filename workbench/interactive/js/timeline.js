// A model after each of its edits. data: edits [{subject, prompt, answer}]; states {t: {factor, kl, norm, ratio,
// abilities, facts [[reliability, answer], …]}}, those that are measured; current. The slider reports {edits} where a state is not measured.
views.timeline = (root, data, send, state) => {
  const last = data.edits.length;
  state.edits = Math.min(state.edits ?? data.current, last);
  if (state.given !== data.current) state.edits = data.current;
  state.given = data.current;
  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toPrecision(digits).replace(/\.?0+$/, ""));
  const title = h("div", { class: "wb-timeline-title", "aria-live": "polite" });
  const facts = h("div", { class: "wb-scroll" });
  const show = (edits) => {
    state.edits = edits;
    const edit = data.edits[edits - 1];
    const measured = data.states[edits];
    const name = edits ? `After edit ${edits} of ${last}: ${edit.subject} → ${edit.answer}` : "Before the first edit";
    slider.setAttribute("aria-valuetext", name);
    const numbers = measured
      ? `perplexity ${number(measured.factor)} times the unedited model's, KL ${number(measured.kl)} nats per token, ‖W − W₀‖ ${number(measured.norm)}, σ₁(ΔW) ${number(measured.ratio)} times σ₁(W₀)${measured.abilities === null || measured.abilities === undefined ? "" : `, abilities ${measured.abilities >= 0 ? "+" : "−"}${number(Math.abs(measured.abilities))} nats per token (stored)`}`
      : "not measured";
    title.replaceChildren(h("b", {}, name), h("div", {}, numbers));
    const rows = data.edits.slice(0, edits).map((each, i) => {
      const [value, answer] = measured?.facts?.[i] ?? [];
      const sign = value === undefined ? "" : value >= 0.999 ? "✓ held" : value > 0 ? "partly" : "✗ not held";
      return h("tr", {}, h("td", {}, String(i + 1)), h("td", {}, `${each.prompt} → ${each.answer}`), h("td", {}, answer ?? "–"), h("td", {}, number(value)), h("td", {}, sign));
    });
    facts.replaceChildren(
      rows.length
        ? h("table", { class: "wb-table wb-timeline-facts" }, h("thead", {}, h("tr", {}, ["Edit", "Prompt and new answer", "Answer then", "Reliability", ""].map((head) => h("th", { scope: "col" }, head)))), h("tbody", {}, rows))
        : h("p", { class: "wb-small" }, "No fact is edited yet."));
  };
  const choose = (edits) => {
    show(edits);
    if (!data.states[edits]) send({ edits });
  };
  const slider = h("input", { type: "range", min: 0, max: last, step: 1, value: state.edits, class: "wb-timeline-slider", "data-key": "timeline-slider",
    "aria-label": "Number of edits", input: (event) => show(Number(event.target.value)), change: (event) => choose(Number(event.target.value)) });
  const chart = h("div", {});
  state.chart ??= {};
  const line = Object.entries(data.states).map(([t, each]) => [Number(t), each.factor ?? NaN]).sort((a, b) => a[0] - b[0]);
  views.curves(chart, { label: "Perplexity by number of edits", key: "timeline-chart", x: { label: "edits", whole: true },
    y: { label: "perplexity / unedited", log: true, include: [1, 1.5] }, series: [{ name: "perplexity, measured states", points: line }], marks: data.marks,
    current: state.edits, picks: true, width: Math.max(340, Math.min(860, root.clientWidth || 680)) }, ({ x }) => { slider.value = x; choose(x); }, state.chart);
  root.append(h("label", { class: "wb-timeline-label" }, h("span", {}, "0"), slider, h("span", {}, String(last))), title, chart, facts);
  show(state.edits);
};
