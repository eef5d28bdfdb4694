"use strict";

// The turntable; without this script, its frames remain a scrollable strip.
for (const table of document.querySelectorAll(".turntable")) {
  const strip = table.querySelector(".strip");
  const frames = [...strip.querySelectorAll("img")];
  const player = table.querySelector(".player");
  const slider = player.querySelector("input");
  const output = player.querySelector("output");
  const button = player.querySelector("button");
  const period = 4000 / frames.length; // milliseconds: a turn takes four seconds
  let shown = 0;
  let last = 0;
  let playing = false;

  const show = (number) => {
    frames[shown].classList.remove("now");
    shown = ((number % frames.length) + frames.length) % frames.length;
    frames[shown].classList.add("now");
    slider.value = shown;
    output.value = `${Math.round((360 * shown) / frames.length)}°`;
    slider.setAttribute("aria-valuetext", output.value);
  };
  const tick = (time) => {
    if (!playing) return;
    if (time - last >= period) {
      last = time;
      show(shown + 1);
    }
    requestAnimationFrame(tick);
  };
  const play = (wanted) => {
    if (wanted && !playing) requestAnimationFrame(tick);
    playing = wanted;
    table.classList.toggle("playing", playing);
    button.setAttribute("aria-label", playing ? "Pause" : "Play");
  };

  slider.addEventListener("input", () => {
    play(false);
    show(Number(slider.value));
  });
  button.addEventListener("click", () => play(!playing));
  let grip = null;
  strip.addEventListener("pointerdown", (event) => {
    play(false);
    grip = { x: event.clientX, from: shown };
    strip.setPointerCapture(event.pointerId);
  });
  strip.addEventListener("pointermove", (event) => {
    // Dragging over the whole width is one turn, as if holding the object.
    if (grip) show(grip.from - Math.round(((event.clientX - grip.x) / strip.clientWidth) * frames.length));
  });
  for (const end of ["pointerup", "pointercancel"]) strip.addEventListener(end, () => (grip = null));

  table.classList.add("live");
  player.hidden = false;
  show(0);
  // Plays only while visible, and never if the user prefers reduced motion.
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {
    let started = false;
    new IntersectionObserver((entries) => {
      const seen = entries[entries.length - 1].isIntersecting;
      if (seen && !started) play((started = true));
      if (!seen && playing) {
        play(false);
        started = false;
      }
    }).observe(table);
  }
}

// The viewers; the asset is embedded in the page, in the download link.
for (const viewer of document.querySelectorAll("model-viewer")) {
  const figure = viewer.closest("figure");
  const hint = figure.querySelector(".hint");
  const fail = (reason) => {
    viewer.dataset.state = "failed";
    hint.textContent = `${reason} A rendered picture stands in its place.`;
  };
  hint.textContent = "Drag to turn, scroll to zoom. Lit evenly from all sides.";
  viewer.addEventListener("load", () => (viewer.dataset.state = "loaded"));
  viewer.addEventListener("error", () => fail("This browser cannot show the mesh in 3D."));
  const canvas = document.createElement("canvas");
  if (!customElements.get("model-viewer")) {
    fail("The viewer is missing: its file was to lie beside this page.");
  } else if (!canvas.getContext("webgl2")) {
    fail("This browser has no WebGL 2, which the viewer needs.");
  } else {
    fetch(figure.querySelector("a[download]").href)
      .then((response) => response.blob())
      .then((blob) => (viewer.src = URL.createObjectURL(blob)))
      .catch(() => fail("This browser cannot open the mesh inside this page."));
  }
}
