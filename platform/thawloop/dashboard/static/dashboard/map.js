// The campaign's map in EPSG:3413: vector tiles from PostGIS, pictures of the tiles when close.
(() => {
  const settings = JSON.parse(document.getElementById("map-settings").textContent);
  const element = document.getElementById("map");
  const base = element.dataset.url;
  const HALF = 12582912;
  proj4.defs("EPSG:3413", "+proj=stere +lat_0=90 +lat_ts=70 +lon_0=-45 +k=1 +x_0=0 +y_0=0 +datum=WGS84 +units=m +no_defs");
  proj4.defs(`EPSG:${settings.srid}`, settings.proj4);
  ol.proj.proj4.register(proj4);
  const polar = ol.proj.get("EPSG:3413");
  polar.setExtent([-HALF, -HALF, HALF, HALF]);
  polar.setWorldExtent([-180, 0, 180, 90]);
  const resolutions = Array.from({ length: 19 }, (_, zoom) => (2 * HALF) / 512 / 2 ** zoom);
  const source = new ol.source.VectorTile({
    projection: polar, format: new ol.format.MVT({ idProperty: "id" }), url: `${base}map/{z}/{x}/{y}.mvt`,
    tileGrid: new ol.tilegrid.TileGrid({ extent: [-HALF, -HALF, HALF, HALF], resolutions, tileSize: 512 }),
  });
  const line = (color, width, dash) => new ol.style.Stroke({ color, width, lineDash: dash });
  const fill = (color) => new ol.style.Fill({ color });
  const isClose = (resolution) => settings.size / resolution > 48; // pixels a tile is wide on the screen
  // Many small shapes are one point with their number; the server joins them (vector_tiles.py).
  const heap = (feature, color) => new ol.style.Style({
    image: new ol.style.Circle({ radius: Math.min(3, 1 + Math.log10(feature.get("count")) / 2), fill: fill(color + "b0") }), zIndex: 5,
  });
  const mixed = (shares) => { // of [color, weight]
    const total = shares.reduce((sum, [, weight]) => sum + weight, 0);
    return [0, 1, 2].map((band) => Math.round(shares.reduce((sum, [color, weight]) => sum + color[band] * weight, 0) / total));
  };
  function blockStyle(feature) {
    const tiles = feature.get("tiles"), done = feature.get("submitted") / tiles, waiting = feature.get("waiting") / tiles;
    const uncertainty = feature.get("uncertainty") ?? 0, rest = Math.max(0, 1 - done - waiting) * uncertainty;
    if (done + waiting + rest === 0) return new ol.style.Style({ fill: fill("rgba(255,255,255,.02)"), zIndex: 3 });
    const [r, g, b] = mixed([[[43, 122, 61], done], [[230, 161, 92], waiting], [[68, 1, 84], rest]]);
    return new ol.style.Style({ fill: fill(`rgba(${r},${g},${b},${(0.05 + 0.5 * Math.min(1, done + waiting + rest)).toFixed(3)})`), zIndex: 3 });
  }
  function style(feature, resolution) {
    const shade = feature.get("color");
    switch (feature.get("layer")) {
      case "regions": return new ol.style.Style({ stroke: line("#0f3d4c", 2), zIndex: 4 });
      case "blocks": return blockStyle(feature);
    }
    if (feature.get("count")) return heap(feature, shade ?? "#1f6feb");
    switch (feature.get("layer")) {
      case "labels": return new ol.style.Style({ stroke: line(shade, 2), fill: fill(shade + "22"), zIndex: 6 });
      case "instances": return new ol.style.Style({ stroke: line("#1f6feb", 1.5, [5, 4]), zIndex: 5 });
    }
    const state = feature.get("state"), uncertainty = feature.get("uncertainty");
    const veil = isClose(resolution) ? 0.45 : 1; // the picture below should be seen
    let color = "rgba(255,255,255,.02)";
    if (state === "submitted") color = `rgba(43,122,61,${0.4 * veil})`;
    else if (state === "returned") color = `rgba(176,42,48,${0.5 * veil})`;
    else if (state === "open" || state === "pending") color = `rgba(230,161,92,${0.55 * veil})`;
    else if (uncertainty !== undefined) color = `rgba(68,1,84,${((0.05 + 0.5 * uncertainty) * veil).toFixed(3)})`;
    const small = settings.size / resolution < 6;
    return new ol.style.Style({ fill: fill(color), stroke: small ? undefined : line("rgba(15,61,76,.35)", 1), zIndex: 3 });
  }
  const vectors = new ol.layer.VectorTile({ source, style, declutter: false, zIndex: 2 });
  const pictures = new ol.layer.Group({ zIndex: 1 });
  const graticule = new ol.layer.Graticule({ strokeStyle: line("rgba(15,61,76,.15)", 1), showLabels: true, wrapX: false, zIndex: 0 });
  const map = new ol.Map({
    target: element, layers: [pictures, vectors, graticule],
    view: new ol.View({ projection: polar, center: [0, 0], zoom: 3, maxResolution: resolutions[0], minResolution: 0.25, enableRotation: false }),
    controls: ol.control.defaults.defaults().extend([new ol.control.ScaleLine()]),
  });
  if (settings.extent) map.getView().fit(settings.extent, { padding: [20, 20, 20, 20] });
  new ResizeObserver(() => map.updateSize()).observe(element);

  const keyOf = (feature) => `${settings.prefix}_c${feature.get("col")}_r${feature.get("row")}`;
  // as small as it will be seen; the map keeps a picture until the tile leaves the screen
  const sizeFor = (resolution) => {
    const side = [64, 128, 256].find((size) => size >= (settings.size / resolution) * window.devicePixelRatio);
    return side ? `?size=${side}` : "";
  };
  const shown = new Map();
  function showPictures() {
    const resolution = map.getView().getResolution();
    const wanted = new Map(), size = sizeFor(resolution);
    if (isClose(resolution)) {
      for (const feature of vectors.getFeaturesInExtent(map.getView().calculateExtent(map.getSize()))) {
        if (feature.get("layer") === "tiles") wanted.set(`${keyOf(feature)}/picture/${size}`, feature);
        if (wanted.size > 150) break;
      }
    }
    for (const [key, layer] of shown) if (!wanted.has(key)) { pictures.getLayers().remove(layer); shown.delete(key); }
    for (const [key, feature] of wanted) {
      if (shown.has(key)) continue;
      const x = feature.get("col") * settings.step, y = feature.get("row") * settings.step;
      const layer = new ol.layer.Image({ source: new ol.source.ImageStatic({
        url: `${base}tiles/${key}`, imageExtent: [x, y, x + settings.size, y + settings.size], projection: `EPSG:${settings.srid}`, interpolate: false,
      }) });
      pictures.getLayers().push(layer);
      shown.set(key, layer);
    }
  }
  map.on("rendercomplete", showPictures);
  map.on("click", (event) => {
    const feature = map.getFeaturesAtPixel(event.pixel).find((f) => f.get("layer") === "tiles");
    if (feature) htmx.ajax("GET", `${base}tiles/${keyOf(feature)}/`, "#tile");
    const block = feature ? undefined : map.getFeaturesAtPixel(event.pixel).find((f) => f.get("layer") === "blocks");
    if (block) map.getView().animate({ center: event.coordinate, zoom: map.getView().getZoom() + 2, duration: 250 });
  });
  map.on("pointermove", (event) => { element.style.cursor = map.hasFeatureAtPixel(event.pixel) ? "pointer" : ""; });
  element.dataset.ready = "true";
  setInterval(() => source.refresh(), 30000);
})();
