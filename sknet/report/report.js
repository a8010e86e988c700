"use strict";
// Tables sort by any column, with pointer or keyboard. Unknown cells stay last.
const UNKNOWN = "\u2013";
const NUMBER = /^[+-]?[\d,]*\.?\d+(e[+-]?\d+)?( |$)/;
const number = (text) => parseFloat(text.replaceAll(",", ""));
const byNumber = (a, b) => number(a) - number(b);
const byText = (a, b) => a.localeCompare(b, "en", { numeric: true });

function sort(table, column, ascending) {
  const rows = [...table.tBodies[0].rows];
  const text = (row) => row.cells[column].textContent.trim();
  const known = rows.filter((row) => text(row) !== UNKNOWN);
  const order = known.every((row) => NUMBER.test(text(row))) ? byNumber : byText;
  known.sort((a, b) => (ascending ? 1 : -1) * order(text(a), text(b)));
  table.tBodies[0].append(...known, ...rows.filter((row) => text(row) === UNKNOWN));
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => {
      const ascending = header.getAttribute("aria-sort") !== "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

// A link to something in a closed <details> opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let element = target; element; element = element.parentElement)
    if (element instanceof HTMLDetailsElement) element.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
