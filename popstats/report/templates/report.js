(() => {
  "use strict";
  const specifications = JSON.parse(document.getElementById("charts").textContent);
  const options = { actions: false, renderer: "svg", tooltip: { theme: "custom" } };
  const drawings = Array.from(document.querySelectorAll("[data-chart]"), (place) =>
    vegaEmbed(place, specifications[place.dataset.chart], options)
  );
  // Readers of the browser tests wait for this; a chart that cannot be drawn says so where it should be.
  Promise.allSettled(drawings).then((results) => {
    document.body.dataset.charts = results.every((r) => r.status === "fulfilled") ? "drawn" : "failed";
  });
  // Paper has no toggles: everything folded is opened for printing, and folded again afterwards.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open])"));
    folded.forEach((d) => (d.open = true));
  });
  addEventListener("afterprint", () => folded.forEach((d) => (d.open = false)));
})();
