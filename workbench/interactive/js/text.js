// A text, its tokens colored by the change of their log-probability; a token in focus or under the pointer shows what
// both models predicted in its place. data: edited, n, scale (nats), mean and perplexity ([before, after]), tokens
// (text, before, after, top: [[[token, probability], …] before, … after]).
views.text = (root, data, send, state) => {
  const signed = (x) => `${x < 0 ? "−" : "+"}${Math.abs(x).toFixed(Math.abs(x) < 0.095 ? 3 : 2)}`;
  const nats = (x) => (x === null ? "no number" : x.toFixed(2).replace("-", "−"));
  const number = (x) => (x === null ? "∞" : x.toLocaleString("en", { maximumSignificantDigits: 3 }));
  const changeOf = (token) => (token.before === null || token.after === null ? null : token.after - token.before);
  const strength = (change) => (change === null ? 0 : Math.sign(change) * Math.sqrt(Math.min(1, Math.abs(change) / data.scale)));
  const shown = (text) => (text === "" ? "◌" : text.replaceAll("\n", "↵\n"));
  const id = `wb-text-${Math.random().toString(36).slice(2)}`;

  const describe = (token) => {
    if (token.before === null) return `${visible(token.text)}: the first token, which nothing predicts`;
    const change = changeOf(token);
    return `${visible(token.text)}: log-probability ${nats(token.before)}`
      + (data.edited ? ` unedited, ${nats(token.after)} edited${change === null ? "" : `, change ${signed(change)} nats`}` : "");
  };

  const list = (title, rows, own) => h("div", { class: "wb-text-list" },
    h("div", { class: "wb-text-side" }, title),
    h("table", null, h("tbody", null, rows.map(([token, p]) => h("tr", { class: token === own ? "wb-text-own" : null },
      h("td", null, token === own ? "▸ " : "", visible(token)), h("td", null, percent(p ?? 0)))))));

  const tip = h("div", { class: "wb-text-tip", role: "tooltip", id, hidden: true });
  const area = h("div", { class: "wb-text-area" });

  const hide = () => {
    tip.hidden = true;
    for (const each of area.querySelectorAll("[aria-describedby]")) each.removeAttribute("aria-describedby");
  };
  const show = (element) => {
    hide();
    const token = data.tokens[Number(element.dataset.index)];
    tip.replaceChildren(h("div", { class: "wb-text-head" }, describe(token)));
    if (token.top[0].length) {
      tip.append(h("div", { class: "wb-text-lists" },
        list(data.edited ? "Unedited" : "Predicted", token.top[0], token.text),
        data.edited ? list("Edited", token.top[1], token.text) : null));
    }
    tip.hidden = false;
    element.setAttribute("aria-describedby", id);
    const [box, at] = [frame.getBoundingClientRect(), element.getClientRects()[0]];
    const left = Math.max(0, Math.min(at.left - box.left, box.width - tip.offsetWidth));
    tip.style.setProperty("left", `${left}px`);
    tip.style.setProperty("top", `${element.getBoundingClientRect().bottom - box.top + 4}px`);
  };

  const choose = (element, focus) => {
    for (const each of area.querySelectorAll('[tabindex="0"]')) {
      each.setAttribute("tabindex", "-1");
      each.setAttribute("aria-selected", "false");
    }
    element.setAttribute("tabindex", "0");
    element.setAttribute("aria-selected", "true");
    state.index = Number(element.dataset.index);
    if (focus) element.focus();
  };

  // The token of the line above (-1) or below (1) that is nearest in the horizontal direction.
  const onNextLine = (element, direction) => {
    const at = element.getClientRects()[0];
    const others = [...area.children].map((each) => [each, each.getClientRects()[0]])
      .filter(([, box]) => box && (box.top - at.top) * direction > at.height / 2);
    if (!others.length) return null;
    const line = direction * Math.min(...others.map(([, box]) => box.top * direction));
    const near = others.filter(([, box]) => Math.abs(box.top - line) < at.height / 2);
    return near.reduce((a, b) => (Math.abs(a[1].left - at.left) <= Math.abs(b[1].left - at.left) ? a : b))[0];
  };

  const move = (event) => {
    const element = event.target.closest("[data-index]");
    if (!element) return;
    if (event.key === "Escape") return hide();
    const next = {
      ArrowRight: () => element.nextElementSibling,
      ArrowLeft: () => element.previousElementSibling,
      ArrowDown: () => onNextLine(element, 1),
      ArrowUp: () => onNextLine(element, -1),
      Home: () => area.firstElementChild,
      End: () => area.lastElementChild,
    }[event.key]?.();
    if (next === undefined) return;
    event.preventDefault();
    if (next) choose(next, true);
  };

  const kept = Math.min(state.index ?? 0, data.tokens.length - 1);
  data.tokens.forEach((token, i) => {
    const change = changeOf(token);
    const kind = change === null || Math.abs(change) < 0.05 ? "" : change < 0 ? " wb-text-less" : " wb-text-more";
    const element = h("span", {
      class: `wb-text-token${kind}`, role: "option", "data-index": i, "data-key": `text ${i}`, "aria-label": describe(token),
      tabindex: i === kept ? "0" : "-1", "aria-selected": i === kept ? "true" : "false",
    }, shown(token.text));
    element.style.setProperty("background-color", diverging(0.55 * strength(change)));
    area.append(element);
  });
  fill(area, {
    role: "listbox", "aria-label": "Tokens of the text; arrow keys move between them", "aria-orientation": "horizontal",
    keydown: move,
    focusin: (event) => { choose(event.target, false); show(event.target); },
    focusout: hide,
    click: (event) => event.target.closest("[data-index]")?.focus(),
    mouseover: (event) => { const element = event.target.closest("[data-index]"); if (element) show(element); },
    mouseleave: hide,
  }, []);
  const frame = h("div", { class: "wb-text-frame" }, area, tip);

  const [before, after] = data.mean;
  const summary = data.edited
    ? h("p", { class: "wb-text-summary" }, `Over ${data.n} tokens, perplexity `, h("b", null, number(data.perplexity[0])), " unedited and ",
      h("b", null, number(data.perplexity[1])), ` edited; mean log-probability ${nats(before)} → ${nats(after)} nats per token`,
      before === null || after === null ? "." : ` (${signed(after - before)}).`)
    : h("p", { class: "wb-text-summary" }, `Over ${data.n} tokens, perplexity `, h("b", null, number(data.perplexity[0])),
      "; no edit is applied, so there is no change to show.");
  root.append(summary);
  if (data.edited) {
    const swatch = (x) => {
      const element = h("span", { class: "wb-text-swatch" });
      element.style.setProperty("background-color", diverging(0.55 * x));
      return element;
    };
    root.append(h("div", { class: "wb-text-legend", role: "img", "aria-label": `Blue: less probable after the edits, by up to ${number(data.scale)} nats; orange: more probable` },
      h("span", { class: "wb-text-less" }, `less probable, −${number(data.scale)} nats`), [-1, -0.7, -0.35, 0, 0.35, 0.7, 1].map(swatch),
      h("span", { class: "wb-text-more" }, `more probable, +${number(data.scale)} nats`)));
  }
  root.append(frame);
  const most = data.tokens.map((token, i) => [i, changeOf(token) ?? 0]).filter(([, change]) => Math.abs(change) >= 0.005)
    .sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 8);
  if (most.length) {
    root.append(h("div", { class: "wb-text-most" }, h("span", null, "Changed most: "), most.map(([i, change]) =>
      h("button", { type: "button", click: () => choose(area.children[i], true), "data-key": `most ${i}` },
        `${visible(data.tokens[i].text)} ${signed(change)}`))));
  }
};
