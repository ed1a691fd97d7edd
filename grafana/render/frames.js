// Prometheus' answers -> the data frames that Grafana's Prometheus data source makes of them, with the panel's
// transformations and field options applied by @grafana/data.
import {
  applyFieldOverrides, cacheFieldDisplayNames, FieldConfigOptionsRegistry, FieldType, identityOverrideProcessor, numberOverrideProcessor,
  standardFieldConfigEditorRegistry, standardTransformers, standardTransformersRegistry, stringOverrideProcessor,
  thresholdsOverrideProcessor, toDataFrame, transformDataFrame, unitOverrideProcessor, valueMappingsOverrideProcessor,
} from "@grafana/data";
import { firstValueFrom } from "rxjs";

// Those that the dashboards use; Grafana's own list has some twice under older names.
standardTransformersRegistry.setInit(() =>
  [standardTransformers.noopTransformer, standardTransformers.mergeTransformer, standardTransformers.organizeFieldsTransformer,
   standardTransformers.filterFieldsByNameTransformer, standardTransformers.orderFieldsTransformer, standardTransformers.renameFieldsTransformer]
    .map((transformation) => ({ id: transformation.id, name: transformation.id, transformation: async () => transformation })),
);

const option = (id, process, path = id) => ({ id, path, name: id, process, shouldApply: () => true, editor: () => null, override: () => null, settings: {} });
const OPTIONS = [
  option("unit", unitOverrideProcessor),
  option("decimals", numberOverrideProcessor),
  option("min", numberOverrideProcessor),
  option("max", numberOverrideProcessor),
  option("mappings", valueMappingsOverrideProcessor),
  option("thresholds", thresholdsOverrideProcessor),
  option("color", identityOverrideProcessor),
  option("noValue", stringOverrideProcessor),
];
const CUSTOM = [
  ...["drawStyle", "lineInterpolation", "lineWidth", "fillOpacity", "gradientMode", "showPoints", "pointSize", "stacking", "thresholdsStyle"],
  ...["spanNulls", "axisPlacement", "axisLabel", "axisColorMode", "axisGridShow", "scaleDistribution", "barAlignment", "hideFrom", "cellOptions", "align", "minWidth"],
].map((id) => ({ ...option(`custom.${id}`, identityOverrideProcessor, id), isCustom: true }));
standardFieldConfigEditorRegistry.setInit(() => OPTIONS);
const registry = new FieldConfigOptionsRegistry(() => [...OPTIONS, ...CUSTOM]);

// What Grafana's panels take where a dashboard says nothing.
const DEFAULTS = {
  timeseries: { drawStyle: "line", lineInterpolation: "linear", lineWidth: 1, fillOpacity: 0, gradientMode: "none", showPoints: "auto", pointSize: 5 },
};

const seconds = (point) => [point[0] * 1000, point[1] === "NaN" ? null : Number(point[1])];

function legend(format, labels) {
  if (format !== "__auto") return format.replace(/{{\s*(\w+)\s*}}/g, (_, name) => labels[name] ?? "");
  return Object.values(labels).join(", ") || "value";
}

function series(target, { metric, values, value }, step) {
  const points = (values ?? [value]).map(seconds);
  const config = { displayNameFromDS: legend(target.legendFormat, metric), interval: step };
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, values: points.map(([at]) => at), config: { interval: step } },
      { name: "Value", type: FieldType.number, values: points.map(([, v]) => v), labels: metric, config },
    ],
  });
}

function table(target, found, several) {
  const labels = [...new Set(found.flatMap(({ metric }) => Object.keys(metric)))].filter((name) => name !== "__name__");
  const points = found.map(({ value }) => seconds(value));
  return toDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, values: points.map(([at]) => at), config: {} },
      ...labels.map((name) => ({ name, type: FieldType.string, values: found.map(({ metric }) => metric[name] ?? ""), config: {} })),
      { name: several ? `Value #${target.refId}` : "Value", type: FieldType.number, values: points.map(([, v]) => v), config: {} },
    ],
  });
}

export function framesOf(panel, answers, step) {
  return panel.targets.flatMap((target) => {
    const found = answers[target.refId];
    if (target.format === "table") return [table(target, found, panel.targets.length > 1)];
    return found.map((each) => series(target, each, step));
  });
}

export function transformed(panel, frames) {
  const context = { interpolate: (text) => text };
  return firstValueFrom(transformDataFrame(panel.transformations ?? [], frames, context));
}

export function configured(panel, data, theme) {
  const { defaults, overrides } = panel.fieldConfig;
  const custom = { ...DEFAULTS[panel.type], ...defaults.custom };
  const frames = applyFieldOverrides({
    data,
    fieldConfig: { defaults: { ...defaults, custom }, overrides },
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: "utc",
  });
  cacheFieldDisplayNames(frames);
  return frames;
}
