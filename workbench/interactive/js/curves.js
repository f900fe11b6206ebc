// Lines over one axis. data: label; x and y {label, log}; series [{name, points [[x, y], …]}]; marks [[x, text], …];
// width and height in units of the text; picks: whether a click or Enter reports {x}. The cursor reads the values at one x, by mouse or arrow keys.
views.curves = (root, data, send, state) => {
  const fitted = (element) => Math.max(340, Math.min(860, element.clientWidth || 680)); // text keeps its size on a phone
  const [width, height, left, right, top, bottom] = [data.width ?? fitted(root), data.height ?? 280, 62, 14, 12, 44];
  const positive = (axis, value) => Number.isFinite(value) && (!axis.log || value > 0);
  const points = data.series.flatMap((line) => line.points).filter(([x, y]) => positive(data.x, x) && positive(data.y, y));
  if (!points.length) {
    root.append(h("p", { class: "wb-small" }, data.empty ?? "Nothing is measured yet."));
    return;
  }
  const scale = (axis, values, from, to) => {
    const f = axis.log ? Math.log10 : (value) => value;
    let [low, high] = [Math.min(...values.map(f)), Math.max(...values.map(f))];
    if (axis.log && axis !== data.x) [low, high] = [low - 0.04 * (high - low) - 0.02, high + 0.06 * (high - low) + 0.02];
    else if (axis !== data.x) [low, high] = [axis.low ?? low, axis.high ?? high];
    if (high <= low) [low, high] = [low - 0.5, high + 0.5];
    const at = (value) => from + ((f(value) - low) / (high - low)) * (to - from);
    const steps = [];
    if (axis.log) {
      const wide = high - low > 2.5;
      const every = Math.max(1, Math.ceil((high - low) / 6));
      for (let e = Math.floor(low); e <= Math.ceil(high); e += wide ? every : 1) for (const m of wide ? [1] : high - low > 1 ? [1, 2, 5] : [1, 1.5, 2, 3, 5, 7]) steps.push(m * 10 ** e);
    } else {
      const raw = (high - low) / 5;
      const power = 10 ** Math.floor(Math.log10(raw));
      const step = Math.max(axis.whole ? 1 : 0, [1, 2, 5, 10].find((m) => m * power >= raw) * power);
      for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) steps.push(v);
    }
    return { at, ticks: steps.filter((v) => f(v) >= low - 1e-9 && f(v) <= high + 1e-9) };
  };
  const text = (value) => {
    if (!Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    return size && (size >= 1e5 || size < 1e-3) ? value.toExponential(1) : String(Number(value.toPrecision(3)));
  };
  const X = scale(data.x, points.map(([x]) => x), left, width - right);
  const Y = scale(data.y, [...points.map(([, y]) => y), ...(data.y.include ?? [])], height - bottom, top);
  const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "wb-curves-drawing", "aria-hidden": "true" });
  for (const tick of X.ticks) {
    drawing.append(svg("line", { class: "wb-curves-grid", x1: X.at(tick), x2: X.at(tick), y1: top, y2: height - bottom }));
    drawing.append(svg("text", { class: "wb-curves-tick", x: X.at(tick), y: height - bottom + 15, "text-anchor": "middle" }, text(tick)));
  }
  for (const tick of Y.ticks) {
    drawing.append(svg("line", { class: "wb-curves-grid", x1: left, x2: width - right, y1: Y.at(tick), y2: Y.at(tick) }));
    drawing.append(svg("text", { class: "wb-curves-tick", x: left - 6, y: Y.at(tick) + 4, "text-anchor": "end" }, text(tick)));
  }
  const middle = (top + height - bottom) / 2;
  drawing.append(svg("text", { class: "wb-curves-label", x: (left + width - right) / 2, y: height - 8, "text-anchor": "middle" }, data.x.label));
  drawing.append(svg("text", { class: "wb-curves-label", x: 13, y: middle, transform: `rotate(-90 13 ${middle})`, "text-anchor": "middle" }, data.y.label));
  for (const [x, note] of data.marks ?? []) {
    drawing.append(svg("line", { class: "wb-curves-mark", x1: X.at(x), x2: X.at(x), y1: top, y2: height - bottom }, svg("title", {}, note)));
  }
  const cursor = svg("line", { class: "wb-curves-cursor", x1: -9, x2: -9, y1: top, y2: height - bottom });
  drawing.append(cursor);
  const dot = (i, x, y) =>
    [
      () => svg("circle", { cx: x, cy: y, r: 3.5 }),
      () => svg("rect", { x: x - 3, y: y - 3, width: 6, height: 6 }),
      () => svg("path", { d: `M${x} ${y - 4} L${x + 4} ${y + 3} L${x - 4} ${y + 3} Z` }),
      () => svg("path", { d: `M${x} ${y - 4} L${x + 4} ${y} L${x} ${y + 4} L${x - 4} ${y} Z` }),
    ][i % 4]();
  data.series.forEach((line, i) => {
    const shown = line.points.filter(([x, y]) => positive(data.x, x) && positive(data.y, y)).map(([x, y]) => [X.at(x), Y.at(y)]);
    const group = svg("g", { class: `wb-curve wb-curve-${i % 6}` });
    group.append(svg("polyline", { points: shown.map((point) => point.join(",")).join(" ") }));
    if (shown.length <= 40) group.append(...shown.map(([x, y]) => dot(i, x, y)));
    drawing.append(group);
  });
  const legend = h("div", { class: "wb-curves-legend" }, data.series.map((line, i) =>
    h("span", {}, svg("svg", { viewBox: "0 0 28 10", width: 28, height: 10, "aria-hidden": "true" },
      svg("g", { class: `wb-curve wb-curve-${i % 6}` }, svg("polyline", { points: "0,5 28,5" }), dot(i, 14, 5))), " ", line.name)));
  const xs = [...new Set(points.map(([x]) => x))].sort((a, b) => a - b);
  const reading = (x) => {
    const parts = data.series.map((line) => [line.name, line.points.find(([other]) => other === x)]).filter(([, point]) => point);
    const note = (data.marks ?? []).find(([other]) => other === x);
    return `${data.x.label} ${text(x)}: ${parts.map(([name, point]) => `${name} ${text(point[1])}`).join(", ")}${note ? `; ${note[1]}` : ""}`;
  };
  const output = h("div", { class: "wb-small wb-curves-reading" });
  const chart = h("div", { class: "wb-curves", role: "slider", tabindex: "0", "data-key": data.key ?? "curves", "aria-label": data.label,
    "aria-valuemin": xs[0], "aria-valuemax": xs.at(-1) }, drawing);
  const move = (x) => {
    state.x = x;
    cursor.setAttribute("x1", X.at(x));
    cursor.setAttribute("x2", X.at(x));
    output.textContent = reading(x);
    chart.setAttribute("aria-valuenow", x);
    chart.setAttribute("aria-valuetext", reading(x));
  };
  const nearest = (event) => {
    const box = drawing.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * width;
    return xs.reduce((best, x) => (Math.abs(X.at(x) - place) < Math.abs(X.at(best) - place) ? x : best));
  };
  chart.addEventListener("pointermove", (event) => move(nearest(event)));
  chart.addEventListener("click", (event) => {
    move(nearest(event));
    if (data.picks) send({ x: state.x });
  });
  chart.addEventListener("keydown", (event) => {
    const i = xs.indexOf(state.x);
    const next = { ArrowLeft: i - 1, ArrowDown: i - 1, ArrowRight: i + 1, ArrowUp: i + 1, Home: 0, End: xs.length - 1 }[event.key];
    if (next !== undefined) {
      event.preventDefault();
      move(xs[Math.max(0, Math.min(xs.length - 1, next))]);
    } else if (data.picks && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      send({ x: state.x });
    }
  });
  root.append(legend, chart, output);
  move(xs.includes(data.current) ? data.current : xs.includes(state.x) ? state.x : xs[0]);
};
