(() => {
  const box = document.querySelector('.flora-pictures[data-key="$key"]:not([data-ready])');
  if (!box) return;
  // The same figure may stand on a page twice: its buttons are no longer one group then.
  const copy = document.querySelectorAll(".flora-pictures[data-ready]").length;
  box.querySelectorAll("[type=radio]").forEach(button => { button.name += "-" + copy; });
  box.dataset.ready = "";
  const pictures = [...box.querySelectorAll("img")];
  const axes = [...box.querySelectorAll("[data-axis]")];
  const chosen = axis => Number((axis.querySelector(":checked") || axis).value);
  const show = () => {
    const number = axes.reduce((sum, axis) => sum * axis.dataset.axis + chosen(axis), 0);
    pictures.forEach((picture, n) => { picture.hidden = n !== number; });
    axes.filter(axis => axis.type === "range").forEach(slider => {
      const word = JSON.parse(slider.dataset.words)[slider.value];
      box.querySelector('output[for="' + slider.id + '"]').textContent = word;
      slider.setAttribute("aria-valuetext", word);
    });
  };
  box.addEventListener("input", show);
  show();
})();
