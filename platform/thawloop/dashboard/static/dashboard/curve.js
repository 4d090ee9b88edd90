// The learning curve: AP on the test tiles over labels, one point per retraining.
(() => {
  const canvas = document.getElementById("curve");
  const note = document.getElementById("curve-note");
  const series = [["ap50", "AP50", "#1b7f79"], ["ap30", "AP30", "#c8742b"], ["ap", "AP@[.5:.95]", "#5b6b72"]];
  const chart = new Chart(canvas, {
    type: "line",
    data: { datasets: [] },
    options: {
      animation: false, maintainAspectRatio: false, parsing: false,
      scales: {
        x: { type: "linear", title: { display: true, text: "labels in the release" }, ticks: { precision: 0 } },
        y: { min: 0, max: 1, title: { display: true, text: "test AP" } },
      },
      plugins: { tooltip: { callbacks: { title: (items) => items[0].raw.name } } },
    },
  });
  async function refresh() {
    const answer = await fetch(canvas.dataset.url, { headers: { Accept: "application/json" } });
    if (!answer.ok) { note.textContent = `The learning curve could not be read (HTTP ${answer.status}).`; return; }
    const { points } = await answer.json();
    chart.data.datasets = series.map(([key, label, color]) => ({
      label, borderColor: color, backgroundColor: color, borderWidth: 2, tension: 0,
      pointStyle: points.map((p) => (p.promoted ? "circle" : "crossRot")), pointRadius: 5,
      data: points.filter((p) => p[key] !== null).map((p) => ({ x: p.labels, y: p[key], name: p.model_version })),
    }));
    chart.update();
    note.textContent = points.length ? "● promoted   ✕ kept back by the gate" : "The first retraining gives the first point.";
  }
  refresh();
  setInterval(refresh, 8000);
})();
