// What a report's page does beyond showing: its tables sort, and a trial under the pointer tells its values; a click
// marks it in all plots and tables. Without this script the page shows the same figures.
"use strict";
(() => {
  const MARKS = "[data-keys]";
  const keysOf = (mark) => mark.dataset.keys.split(" ");

  // ---- trials -------------------------------------------------------------------------------------------------------

  const marks = new Map(); // key → what the page shows of that trial
  const words = new Map(); // key → the trial's values
  for (const mark of document.querySelectorAll(MARKS)) {
    for (const key of keysOf(mark)) marks.set(key, [...(marks.get(key) ?? []), mark]);
    const title = mark.querySelector(":scope > title");
    if (title) {
      for (const key of keysOf(mark)) words.set(key, title.textContent);
      title.remove(); // or the browser's own tooltip would cover ours
    }
    for (const line of mark.querySelectorAll(":scope > path")) {
      const wide = line.cloneNode(); // a thin line is hard to meet
      wide.setAttribute("style", "fill: none; stroke: transparent; stroke-width: 9");
      mark.append(wide);
    }
  }

  const tip = document.body.appendChild(document.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  let picked = null; // the keys of the marked trial

  function tell(keys, event) {
    tip.textContent = (keys && words.get(keys.find((key) => words.has(key)))) ?? "";
    tip.hidden = tip.textContent === "";
    tip.classList.toggle("pinned", !event);
    if (event && !tip.hidden) {
      const { width, height } = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 4))}px`;
      tip.style.top = `${event.clientY + height + 24 > innerHeight ? event.clientY - height - 10 : event.clientY + 14}px`;
    } else {
      tip.removeAttribute("style");
    }
  }

  function pick(keys) {
    document.querySelectorAll(".on").forEach((mark) => mark.classList.remove("on"));
    picked = keys;
    for (const key of keys ?? []) for (const mark of marks.get(key) ?? []) mark.classList.add("on");
    document.body.classList.toggle("picked", keys !== null);
    tell(keys);
  }

  document.addEventListener("pointermove", (event) => {
    const mark = event.pointerType === "touch" ? null : event.target.closest(`svg ${MARKS}`);
    if (mark) tell(keysOf(mark), event);
    else if (!tip.hidden && !tip.classList.contains("pinned")) tell(picked);
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest("a, button, summary") || !getSelection().isCollapsed) return;
    const mark = event.target.closest(MARKS);
    if (mark) pick(picked?.join(" ") === mark.dataset.keys ? null : keysOf(mark));
    else if (event.target.closest("svg, #tip")) pick(null);
  });
  document.addEventListener("keydown", (event) => event.key === "Escape" && pick(null));

  // ---- tables -------------------------------------------------------------------------------------------------------

  const order = new Intl.Collator("en", { numeric: true });

  function valueOf(row, column) {
    const cell = row.cells[column];
    const number = cell.dataset.value ?? cell.textContent.replace("−", "-");
    return { text: cell.textContent.trim(), number: parseFloat(number) };
  }

  function sort(head) {
    const figure = head.closest("figure"), body = figure.querySelector("tbody");
    const folded = figure.querySelector("details");
    head = figure.querySelector("thead tr").cells[head.cellIndex];
    if (folded) {
      body.append(...folded.querySelectorAll("tbody tr")); // a sorted table has no tail
      folded.remove();
    }
    const rows = [...body.rows];
    rows.forEach((row, i) => (row.dataset.place ??= i));
    const figures = head.classList.contains("n");
    const turns = figures ? ["descending", "ascending", "none"] : ["ascending", "descending", "none"];
    const turn = turns[turns.indexOf(head.getAttribute("aria-sort") ?? "none") + 1] ?? turns[0];
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    if (turn !== "none") head.setAttribute("aria-sort", turn);
    const sign = turn === "descending" ? -1 : 1;
    rows.sort((one, other) => {
      if (turn === "none") return one.dataset.place - other.dataset.place;
      const a = valueOf(one, head.cellIndex), b = valueOf(other, head.cellIndex);
      if (!figures) return sign * order.compare(a.text, b.text);
      return isNaN(a.number) - isNaN(b.number) || sign * (a.number - b.number) || 0; // without a figure: last
    });
    body.append(...rows);
  }

  for (const head of document.querySelectorAll("figure thead th")) {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sort(head));
  }
})();
