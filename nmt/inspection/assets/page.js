"use strict";
// Draws each heat map from its bytes, and says which value the pointer is on.
const read = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const parse = (color) => [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
for (const canvas of document.querySelectorAll("canvas")) {
  const { rows, columns, low, high, unit } = canvas.dataset;
  const values = read(canvas.dataset.values);
  const colors = canvas.dataset.colors.split(" ").map(parse);
  canvas.width = columns;
  canvas.height = rows;
  const image = new ImageData(Number(columns), Number(rows));
  values.forEach((value, n) => {
    const place = (value / 255) * (colors.length - 1);
    const first = Math.min(Math.floor(place), colors.length - 2);
    const color = colors[first].map((from, k) => from + (place - first) * (colors[first + 1][k] - from));
    image.data.set([...color, 255], 4 * n);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  const grid = canvas.closest(".grid");
  const output = canvas.closest("figure").querySelector("output");
  const order = canvas.dataset.order ? canvas.dataset.order.split(" ") : null;
  const name = (kind, n) => grid.querySelectorAll(`.${kind}`)[n].textContent;
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const column = Math.min(columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * columns)));
    const row = Math.min(rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * rows)));
    const value = Number(low) + (values[row * columns + column] / 255) * (high - low);
    const where = order ? `unit ${order[row]}` : name("row", row);
    output.textContent = `${where}, ${name("column", column)}: ${value.toFixed(2)} ${unit}`;
  });
  canvas.addEventListener("pointerleave", () => { output.textContent = ""; });
}
