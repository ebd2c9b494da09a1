(() => {
  "use strict";
  const specifications = JSON.parse(document.getElementById("charts").textContent);
  const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };
  const places = Array.from(document.querySelectorAll("[data-chart]"));
  const views = new Map();
  const drawings = places.map((place) =>
    vegaEmbed(place, specifications[place.dataset.chart], options).then((drawn) => views.set(place, drawn.view))
  );
  // Readers of the browser tests wait for this; a chart that cannot be drawn says so where it should be.
  Promise.allSettled(drawings).then((results) => {
    document.body.dataset.charts = results.every((r) => r.status === "fulfilled") ? "drawn" : "failed";
  });
  // Paper is narrower than a screen (A4 and Letter leave about 690 pixels): charts are drawn anew for it, since
  // shrunken ones have unreadable labels. Vega redraws at once.
  const sheet = { one: 660, several: 325 };
  const draw = (place, width) => views.get(place)?.signal("width", width).run();
  // A chart that was folded away has no width until it is seen.
  addEventListener("toggle", (event) => {
    event.target.querySelectorAll("[data-chart]").forEach((place) => draw(place, place.clientWidth));
  }, true);
  // A link to something folded opens it.
  const unfold = () => location.hash.length > 1 && document.getElementById(location.hash.slice(1))?.querySelector("details.fold")?.setAttribute("open", "");
  addEventListener("hashchange", unfold);
  unfold();
  document.querySelectorAll("button.copy").forEach((button) => button.addEventListener("click", () => {
    getSelection().selectAllChildren(button.previousElementSibling);
    button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
  }));
  // Paper has no toggles: what is folded is opened for printing, and folded again afterwards. Repetitions are not printed.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open]):not(.twin, .twin *)"));
    folded.forEach((d) => (d.open = true));
    places.forEach((place) => draw(place, place.closest(".many, .pair") ? sheet.several : sheet.one));
  });
  addEventListener("afterprint", () => {
    folded.forEach((d) => (d.open = false));
    places.forEach((place) => draw(place, place.clientWidth));
  });
})();
