"use strict";
document.documentElement.classList.add("live");
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  // What has neither a value nor a text comes last, whichever way.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const text = cell.textContent.trim();
    return text === "" || text === "–" ? null : text.toLowerCase();
  };
  const compare = (one, other) =>
    typeof one === "number" && typeof other === "number"
      ? one - other
      : String(one) < String(other) ? -1 : String(one) > String(other) ? 1 : 0;
  heads.forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const keyed = rows.map((row, place) => ({ row, place, key: keyOf(row, column) }));
      keyed.sort((one, other) => {
        if (one.key === null || other.key === null) {
          return (one.key === null) - (other.key === null) || one.place - other.place;
        }
        return (up ? 1 : -1) * compare(one.key, other.key) || one.place - other.place;
      });
      body.append(...keyed.map((one) => one.row));
    });
  });
  const input = document.getElementById(table.id + "-filter");
  if (!input) continue;
  const said = input.parentElement.querySelector("output");
  const texts = rows.map((row) => row.textContent.toLowerCase());
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, place) => {
      row.hidden = !words.every((word) => texts[place].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    said.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}
