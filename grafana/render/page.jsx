// A dashboard with Grafana's own component library (@grafana/ui): the page that shoot.mjs opens and takes pictures of.
// `window.GIVEN`: {dashboard, from, to (ms), step (ms), answers: panel id -> ref id -> Prometheus' series}.
import "uplot/dist/uPlot.min.css";
import { createTheme, dateTime, EventBusSrv, getDisplayValueAlignmentFactors, getFieldDisplayValues, ThemeContext, VizOrientation } from "@grafana/data";
import { BarGauge, BigValue, GlobalStyles, PanelChrome, PanelContextProvider, TimeSeries, TooltipPlugin2, VizRepeater } from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";
import { createRoot } from "react-dom/client";
import { useEffect, useState } from "react";
import { configured, framesOf, transformed } from "./frames.js";

const { dashboard, from, to, step, answers } = window.GIVEN;
const theme = createTheme({ colors: { mode: "dark" } });
const range = { from: dateTime(from), to: dateTime(to), raw: { from: dateTime(from), to: dateTime(to) } };
const CELL = 30; // pixels of a row of the grid, and the gap between panels: Grafana's own
const GAP = 8;
const WIDTH = window.innerWidth - 2 * GAP;

function place({ x, y, w, h }) {
  const column = (WIDTH + GAP) / 24;
  return { left: x * column, top: y * (CELL + GAP), width: w * column - GAP, height: h * (CELL + GAP) - GAP };
}

function display(panel, frames) {
  return getFieldDisplayValues({
    fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text) => text,
    theme,
    data: frames,
    timeZone: "utc",
  });
}

function Numbers({ panel, frames, width, height }) {
  const [value] = display(panel, frames);
  const { colorMode, graphMode, justifyMode, textMode } = panel.options;
  return <BigValue {...{ width, height, colorMode, graphMode, justifyMode, textMode, theme }} value={value.display} />;
}

function Bars({ panel, frames, width, height }) {
  const { displayMode, valueMode, showUnfilled } = panel.options;
  const draw = ({ value, width, height, alignmentFactors }) => (
    <BarGauge
      {...{ width, height, theme, displayMode, showUnfilled, alignmentFactors }}
      value={value.display}
      field={value.field}
      display={value.view?.getFieldDisplayProcessor(value.colIndex)}
      orientation={VizOrientation.Horizontal}
      valueDisplayMode={valueMode}
      itemSpacing={10}
      text={panel.options.text}
    />
  );
  return (
    <VizRepeater
      {...{ width, height }}
      source={frames}
      getValues={() => display(panel, frames)}
      renderValue={draw}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      orientation={VizOrientation.Horizontal}
      itemSpacing={10}
      minVizHeight={16}
      maxVizHeight={300}
    />
  );
}

function Table({ panel, frames, width, height }) {
  const sort = panel.options.sortBy;
  return <TableNG {...{ width, height }} data={frames[0]} cellHeight={panel.options.cellHeight} sortBy={sort} />;
}

function Trend({ panel, frames, width, height }) {
  return (
    <TimeSeries {...{ width, height, frames }} timeRange={range} timeZone="utc" legend={panel.options.legend} options={panel.options}>
      {(config) => (TooltipPlugin2 ? <TooltipPlugin2 config={config} hoverMode={0} render={() => null} /> : null)}
    </TimeSeries>
  );
}

const KINDS = { stat: Numbers, bargauge: Bars, table: Table, timeseries: Trend };

function Panel({ panel }) {
  const [frames, setFrames] = useState();
  useEffect(() => {
    transformed(panel, framesOf(panel, answers[panel.id], step)).then((found) => setFrames(configured(panel, found, theme)));
  }, []);
  const Kind = KINDS[panel.type];
  const { width, height, ...where } = place(panel.gridPos);
  return (
    <div className="panel" data-id={panel.id} data-kind={panel.type} style={{ position: "absolute", ...where }}>
      <PanelChrome {...{ width, height }} title={panel.title} description={panel.description} padding={panel.type === "table" ? "none" : "md"}>
        {(width, height) => (frames ? <Kind {...{ panel, frames, width, height }} /> : <span />)}
      </PanelChrome>
    </div>
  );
}

function Row({ panel }) {
  const style = { position: "absolute", ...place(panel.gridPos), font: "500 14px Inter, sans-serif", lineHeight: `${CELL}px` };
  return <div style={{ ...style, color: theme.colors.text.primary }}>⌄ {panel.title}</div>;
}

function Page() {
  const bottom = Math.max(...dashboard.panels.map((panel) => panel.gridPos.y + panel.gridPos.h));
  const context = { eventsScope: "page", eventBus: new EventBusSrv() };
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <PanelContextProvider value={context}>
        <div id="dashboard" style={{ position: "relative", margin: GAP, width: WIDTH, height: bottom * (CELL + GAP) }}>
          {dashboard.panels.map((panel) =>
            panel.type === "row" ? <Row key={panel.id} panel={panel} /> : <Panel key={panel.id} panel={panel} />,
          )}
        </div>
      </PanelContextProvider>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById("root")).render(<Page />);
