// The least contrast of what is written: WCAG 2's ratio, over what the page paints behind a text.
const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
const context = canvas.getContext("2d", { willReadFrequently: true });
const light = (value) => {
  const share = value / 255;
  return share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
};
const luminance = ([red, green, blue]) => 0.2126 * light(red) + 0.7152 * light(green) + 0.0722 * light(blue);
const painted = (colours) => {
  for (const colour of colours) {
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
  }
  return [...context.getImageData(0, 0, 1, 1).data];
};
let least = 21;
for (const element of document.querySelectorAll("h1, h2, h3, h4, p, button:not(:disabled), label, mark, .figure")) {
  if (!element.textContent.trim() || !element.checkVisibility()) continue;
  const behind = [];
  for (let own = element; own; own = own.parentElement) behind.unshift(getComputedStyle(own).backgroundColor);
  const ground = luminance(painted(behind));
  const ink = luminance(painted([...behind, getComputedStyle(element).color]));
  least = Math.min(least, (Math.max(ground, ink) + 0.05) / (Math.min(ground, ink) + 0.05));
}
return least;
