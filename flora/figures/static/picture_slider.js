(() => {
  const box = document.querySelector('.flora-pictures[data-key="$key"]:not([data-ready])');
  if (!box) return;
  box.dataset.ready = "";
  const pictures = [...box.querySelectorAll("img")];
  const slider = box.querySelector("input"), text = box.querySelector("output");
  const show = () => {
    pictures.forEach((picture, n) => { picture.hidden = n !== Number(slider.value); });
    text.textContent = pictures[slider.value].dataset.setting;
    slider.setAttribute("aria-valuetext", text.textContent);
  };
  slider.addEventListener("input", show);
  show();
})();
