"use strict";
(() => {
  const root = document.documentElement;
  const data = JSON.parse(document.getElementById("data").textContent);
  const form = document.querySelector(".filters");
  const gallery = document.querySelector(".gallery");
  const cards = [...gallery.querySelectorAll(".card")];
  const groups = [...gallery.querySelectorAll(".group")];
  const told = form.querySelector("output");
  root.classList.add("scripted");

  // --- filter and sort

  const fields = ["kind", "label", "truth", "outcome", "low", "high", "key", "sort"];
  const valueOf = (name) => (form.elements[name] ? form.elements[name].value : "");

  function fits(card) {
    const of = card.dataset;
    const low = valueOf("low"), high = valueOf("high"), key = valueOf("key").toLowerCase();
    const isChosen = (name) => !valueOf(name) || of[name] === valueOf(name);
    if (valueOf("kind") && !of.kinds.split("|").includes(valueOf("kind"))) return false;
    if (!isChosen("label") || !isChosen("outcome")) return false;
    if (valueOf("truth") && !data.cards[of.id].truth.includes(valueOf("truth"))) return false;
    if (low !== "" && !(of.score !== "" && Number(of.score) >= Number(low))) return false;
    if (high !== "" && !(of.score !== "" && Number(of.score) <= Number(high))) return false;
    return !key || of.key.toLowerCase().includes(key);
  }

  function compare(sort) {
    const name = sort.replace("-", ""), sign = sort.startsWith("-") ? 1 : -1;
    const place = (a, b) => a.dataset.place - b.dataset.place;
    if (!name) return place;
    if (name === "name" || name === "outcome") {
      return (a, b) => a.dataset[name].localeCompare(b.dataset[name], undefined, { numeric: true }) || place(a, b);
    }
    // Those without a number come last, whichever way.
    const number = (card) => (card.dataset[name] === "" ? Infinity : sign * Number(card.dataset[name]));
    return (a, b) => (number(a) === number(b) ? place(a, b) : number(a) - number(b));
  }

  let shown = cards;
  function update() {
    const sort = valueOf("sort");
    shown = cards.filter(fits).sort(compare(sort));
    const visible = new Set(shown), names = new Set(shown.map((card) => card.dataset.group));
    for (const card of cards) card.hidden = !visible.has(card);
    // Where each label has few pictures, headings would be most of the page; the pictures have their label anyhow.
    const isHeaded = !sort && shown.length >= 4 * names.size;
    for (const group of groups) group.hidden = !isHeaded || !names.has(group.dataset.group);
    const heads = new Map(groups.map((group) => [group.dataset.group, group]));
    const order = [];
    for (const card of shown) {
      const head = heads.get(card.dataset.group);
      if (isHeaded && head) { order.push(head); heads.delete(card.dataset.group); }
      order.push(card);
    }
    gallery.append(...order);
    told.textContent = `${shown.length} of ${cards.length} pictures`;
    document.querySelector(".nothing-left").hidden = shown.length > 0;
    remember();
  }

  // The address holds what is chosen, so that it can be passed on with the file.
  function remember() {
    const chosen = new URLSearchParams();
    for (const name of fields) if (valueOf(name)) chosen.set(name, valueOf(name));
    const text = String(chosen);
    try {
      if (text) history.replaceState(null, "", `#images?${text}`);
      else if (location.hash.startsWith("#images?")) history.replaceState(null, "", "#images");
    } catch { /* some browsers allow no such thing for files */ }
  }

  function set(name, value) {
    const field = form.elements[name];
    if (!field) return;
    if (field.options && value && ![...field.options].some((each) => each.value === value)) {
      field.add(new Option(value, value));
    }
    field.value = value;
  }

  function recall() {
    const [place, query] = location.hash.split("?");
    if (place !== "#images" || !query) return false;
    const chosen = new URLSearchParams(query);
    form.reset();
    for (const name of fields) if (chosen.has(name)) set(name, chosen.get(name));
    return true;
  }

  form.addEventListener("input", update);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-show-kind], [data-show-label], [data-show-outcome]");
    if (!link) return;
    event.preventDefault();
    form.reset();
    for (const name of ["kind", "label", "truth", "outcome"]) {
      const key = `show${name[0].toUpperCase()}${name.slice(1)}`;
      if (link.dataset[key]) set(name, link.dataset[key]);
    }
    update();
    document.getElementById("images").scrollIntoView();
    form.querySelector("input[name=kind]:checked").focus({ preventScroll: true });
  });
  const recalled = recall();
  window.addEventListener("hashchange", () => { if (recall()) update(); });
  update();
  if (recalled) document.getElementById("images").scrollIntoView();

  // --- one picture, closer

  const closer = document.getElementById("closer");
  let current = null;

  function element(tag, text, attributes = {}) {
    const made = document.createElement(tag);
    made.textContent = text;
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    return made;
  }

  function format(score) {
    return score >= 0.001 || score <= 0 ? score.toFixed(3) : score.toExponential(0);
  }

  function look(card) {
    current = card;
    const of = data.cards[card.dataset.id];
    closer.querySelector("h2").textContent = card.dataset.name;
    const small = card.querySelector("img");
    const frame = closer.querySelector(".closer-picture");
    if (small) frame.replaceChildren(element("img", "", { src: of.large || small.src, alt: small.alt }));
    else frame.replaceChildren(element("span", card.querySelector(".nothing").textContent, { class: "nothing" }));
    for (const [label, map] of of.maps) {
      const figure = element("figure", "");
      const told = label === card.dataset.label ? "answered" : "true label";
      figure.append(
        element("img", "", { src: map, alt: `Where ${label} was seen: the warmer, the more it speaks for it` }),
        element("figcaption", `where ${label} was seen (${told})`),
      );
      frame.append(figure);
    }
    closer.querySelector(".bars").replaceChildren(...of.predictions.map(([label, score, similarity]) => {
      const row = element("li", "", { title: `similarity ${similarity.toFixed(3)}` });
      if (of.truth.includes(label)) row.className = "true";
      const bar = element("span", "", { class: "bar" });
      bar.style.width = `${100 * Math.max(score, 0)}%`;
      row.append(bar, element("bdi", label), element("b", format(score)));
      return row;
    }));
    const rows = [...of.facts, ...of.kept].map(([name, value]) => {
      const row = document.createElement("tr"), cell = document.createElement("td");
      cell.append(element("bdi", value));
      row.append(element("th", name, { scope: "row" }), cell);
      return row;
    });
    closer.querySelector("tbody").replaceChildren(...rows);
    if (!closer.open) closer.showModal();
  }

  function step(by) {
    const at = shown.indexOf(current) + by;
    if (at >= 0 && at < shown.length) look(shown[at]);
  }

  gallery.addEventListener("click", (event) => {
    const button = event.target.closest(".open");
    if (button) look(button.closest(".card"));
  });
  closer.addEventListener("click", (event) => {
    if (event.target === closer || event.target.closest("[data-close]")) closer.close();
    const by = event.target.closest("[data-step]");
    if (by) step(Number(by.dataset.step));
  });
  closer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  closer.addEventListener("close", () => {
    if (current) current.querySelector(".open").focus();
  });

  // --- tables

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, at) => {
      if (head.tagName !== "TH" || head.ariaHidden === "true" || head.hasAttribute("data-plain")) return;
      const button = element("button", head.textContent, { type: "button", class: "sort" });
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const isNumber = head.classList.contains("n");
        const before = head.getAttribute("aria-sort");
        const downwards = before ? before === "ascending" : isNumber;
        for (const each of heads) each.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", downwards ? "descending" : "ascending");
        const value = (row) => row.cells[at].dataset.value ?? row.cells[at].textContent;
        const rows = [...table.tBodies[0].rows].sort((a, b) => (isNumber
          ? (Number(value(a)) || 0) - (Number(value(b)) || 0)
          : value(a).localeCompare(value(b), undefined, { numeric: true })));
        table.tBodies[0].append(...(downwards ? rows.reverse() : rows));
      });
    });
  }
  for (const input of document.querySelectorAll("[data-find]")) {
    const table = document.getElementById(input.dataset.find);
    input.addEventListener("input", () => {
      const sought = input.value.toLowerCase();
      for (const row of table.tBodies[0].rows) row.hidden = !row.cells[0].textContent.toLowerCase().includes(sought);
    });
  }

  // --- histograms of one label

  document.getElementById("spread-label").addEventListener("input", (event) => {
    const label = event.target.value;
    for (const chart of document.querySelectorAll("#scores .chart[data-spread]")) {
      const spread = data.spreads[chart.dataset.spread];
      const all = chart.all ??= [...chart.querySelectorAll("tbody td.n")].map((cell) => cell.textContent);
      const counts = label === "" ? all.map((text) => Number(text.replaceAll(",", ""))) : spread.n[Number(label)];
      const most = Math.max(1, ...counts);
      const names = [...chart.querySelectorAll("tbody tr td:first-child")];
      chart.querySelectorAll("rect").forEach((bar, at) => {
        const height = (100 * counts[at]) / most;
        bar.setAttribute("y", 100 - height);
        bar.setAttribute("height", height);
        const text = counts[at].toLocaleString("en");
        bar.querySelector("title").textContent = `${names[at].textContent}: ${text}`;
        names[at].nextElementSibling.textContent = text;
      });
    }
  });
})();
