"use strict";

const all = (selector, root = document) => [...root.querySelectorAll(selector)];

document.documentElement.classList.add("js");

// Sorting: the first click puts the best on top, the next one the worst. Cells without
// a figure stay at the end both ways.

function sortTable(header) {
  const table = header.closest("table");
  const first = header.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = header.getAttribute("aria-sort") === first ? other : first;
  const sign = direction === "ascending" ? 1 : -1;
  const bottom = all("thead tr:last-child th", table);
  const column = bottom.indexOf(header) + 1;
  const compare = (a, b) => {
    const [x, y] = [a, b].map((row) => row.cells[column].dataset.value);
    if (x === undefined || y === undefined) {
      return (x === undefined) - (y === undefined);
    }
    return sign * (column ? x - y : x.localeCompare(y));
  };
  all("th[aria-sort]", table).forEach((th) => th.removeAttribute("aria-sort"));
  header.setAttribute("aria-sort", direction);
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
}

all("#figures thead button").forEach((button) => {
  button.addEventListener("click", () => sortTable(button.closest("th")));
});

all("button[data-group]").forEach((button) => {
  button.addEventListener("click", () => {
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", shown);
    all(`#figures [data-group="${button.dataset.group}"]`).forEach((cell) => {
      cell.hidden = !shown;
    });
  });
});

// Curves: pointing at one, or at its name, highlights it; pressing the name keeps it so.

const curves = document.querySelector("#curves-section");

function highlight(pointed) {
  const kept = all("button[aria-pressed=true]", curves).map((b) => b.dataset.curve);
  const chosen = new Set(pointed === undefined ? kept : [...kept, pointed]);
  curves.classList.toggle("chosen", chosen.size > 0);
  all("[data-curve]", curves).forEach((part) => {
    part.classList.toggle("on", chosen.has(part.dataset.curve));
  });
}

if (curves) {
  all("[data-curve]", curves).forEach((part) => {
    part.addEventListener("pointerenter", () => highlight(part.dataset.curve));
    part.addEventListener("pointerleave", () => highlight());
  });
  all("button[data-curve]", curves).forEach((button) => {
    button.addEventListener("focus", () => highlight(button.dataset.curve));
    button.addEventListener("blur", () => highlight());
    button.addEventListener("click", () => {
      const pressed = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", pressed);
      highlight(button.dataset.curve);
    });
  });
}

// Gallery.

const tools = document.querySelector("#gallery-tools");

function showRows() {
  all("[data-row]", tools).forEach((box) => {
    all(`.cell[data-row="${box.dataset.row}"]`).forEach((cell) => {
      cell.hidden = !box.checked;
    });
  });
}

if (tools) {
  const root = document.documentElement;
  tools.querySelector("#strength").addEventListener("input", (event) => {
    root.style.setProperty("--strength", event.target.value / 100);
  });
  tools.querySelector("#boxes").addEventListener("change", (event) => {
    root.classList.toggle("no-boxes", !event.target.checked);
  });
  all("[data-row]", tools).forEach((box) => box.addEventListener("change", showRows));
  for (const [name, checked] of [["all", true], ["no", false]]) {
    tools.querySelector(`#${name}-rows`).addEventListener("click", () => {
      all("[data-row]", tools).forEach((box) => {
        box.checked = checked;
      });
      showRows();
    });
  }
}

all("#cases-section a").forEach((link) => {
  const cell = document.querySelector(link.getAttribute("href"));
  link.prepend(cell.querySelector(".picture").cloneNode(true));
});
