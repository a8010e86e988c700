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

// Runs are filtered by what they have in common, and those that are chosen are shown side by side.
const make = (name, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
};

function controls(table) {
  const rows = [...table.tBodies[0].rows];
  const bar = make("div", { className: "controls" });
  const filters = [];
  for (const name of ["recipe", "model", "data"]) {
    const values = [...new Set(rows.map((row) => row.dataset[name]))].sort(byText);
    if (values.length < 2) continue;
    const select = make("select", { name }, new Option("all", ""), ...values.map((each) => new Option(each, each)));
    filters.push(select);
    bar.append(make("label", {}, `${name} `, select));
  }
  const compare = make("button", { type: "button", textContent: "Compare chosen runs" });
  const count = make("span", { role: "status" });
  const area = make("div", { id: "chosen" });
  const chosen = () => rows.filter((row) => row.querySelector(".pick").checked);
  const update = () => {
    for (const row of rows) row.hidden = filters.some((each) => each.value && row.dataset[each.name] !== each.value);
    const shown = rows.filter((row) => !row.hidden).length;
    count.textContent = shown === rows.length ? `${shown} runs` : `${shown} of ${rows.length} runs`;
    compare.disabled = chosen().length < 2;
  };
  for (const row of rows) {
    const pick = make("input", { type: "checkbox", className: "pick" });
    pick.setAttribute("aria-label", `choose run ${row.dataset.key}`);
    pick.addEventListener("change", update);
    row.cells[0].prepend(pick);
  }
  for (const each of filters) each.addEventListener("change", update);
  compare.addEventListener("click", () => {
    area.replaceChildren(sideBySide(table, chosen()));
    area.scrollIntoView({ block: "nearest" });
  });
  bar.append(compare, count);
  table.parentElement.before(bar);
  table.parentElement.after(area);
  update();
}

// One column for each run, one row for each property in which they differ.
function sideBySide(table, runs) {
  const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent).slice(1);
  const known = runs.map((row) => [
    ...names.map((name, index) => [name, row.cells[index + 1].textContent]),
    ...Object.entries(JSON.parse(row.dataset.choices)).map(([name, value]) => [`recipe: ${name}`, value]),
  ]);
  const body = make("tbody");
  known[0].forEach(([name], index) => {
    const values = known.map((each) => each[index][1]);
    if (new Set(values).size === 1) return;
    const head = make("th", { scope: "row", textContent: name });
    body.append(make("tr", {}, head, ...values.map((text) => make("td", { textContent: text }))));
  });
  const heads = ["", ...runs.map((row) => `${row.dataset.recipe}, ${row.dataset.key}`)];
  const top = make("tr", {}, ...heads.map((text) => make(text ? "th" : "td", text ? { scope: "col", textContent: text } : {})));
  const caption = `What differs between the ${runs.length} chosen runs`;
  const box = make("div", { className: "scroll", role: "region", tabIndex: 0 });
  box.setAttribute("aria-label", caption);
  box.append(make("table", {}, make("caption", { textContent: caption }), make("thead", {}, top), body));
  return box;
}

for (const table of document.querySelectorAll("table.results")) if (table.tBodies[0].rows.length > 1) controls(table);

// On paper nothing can be opened. What was closed is closed again after printing.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const each of opened) each.open = true;
});
addEventListener("afterprint", () => {
  for (const each of opened) each.open = false;
  opened = [];
});

// A link to something in a closed <details> opens it.
function openTarget() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let element = target; element; element = element.parentElement)
    if (element instanceof HTMLDetailsElement) element.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
if (location.hash) openTarget();
