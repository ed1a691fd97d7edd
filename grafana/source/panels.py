"""The kinds of panel that dashboards are made of, with one look. Each has a title, a unit and a description."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")

# https://grafana.com/docs/grafana/latest/panels-visualizations/configure-standard-options/#unit
USD, RATIO, SECONDS, BYTES, PLAIN, TOKENS = "currencyUSD", "percentunit", "s", "bytes", "none", "short"
PER_SECOND, TOKENS_PER_SECOND, CORES, HOURS = "reqps", "suffix: tok/s", "suffix: cores", "h"

GREEN, YELLOW, ORANGE, RED, BLUE, GREY = "green", "yellow", "orange", "red", "blue", "text"

Steps = Sequence[tuple[float | None, str]]
"""Thresholds: from which value on which colour; the first is None, from the bottom."""


class About(NamedTuple):
    """What people read on a panel, and how much room it takes (of 24 columns; a row of height is 30 pixels)."""

    title: str
    description: str
    unit: str
    span: int
    height: int = 8
    steps: Steps = ((None, BLUE),)
    decimals: int | None = None


class Query(NamedTuple):
    expr: str
    legend: str = ""


Panel = stat.Panel | timeseries.Panel | table.Panel | bargauge.Panel
AnyPanel = TypeVar("AnyPanel", stat.Panel, timeseries.Panel, table.Panel, bargauge.Panel)


def number(about: About, query: Query, *, name: bool = False) -> stat.Panel:
    """One figure of the whole range. `name`: shows the legend in its place, for what a label says."""
    panel = _described(stat.Panel(), about).with_target(_instant(query, "A")).max_data_points(1000)
    mode = look.BigValueTextMode.NAME if name else look.BigValueTextMode.VALUE
    return (
        panel.color_mode(look.BigValueColorMode.VALUE)
        .graph_mode(look.BigValueGraphMode.NONE)
        .text_mode(mode)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


def trend(
    about: About,
    *queries: Query,
    stack: Literal["", "normal", "percent"] = "",
    bounds: tuple[float | None, float | None] = (0, None),
    limit: bool = False,
) -> timeseries.Panel:
    """Lines over time, or areas that add up. `limit`: draws the thresholds."""
    panel = _described(timeseries.Panel(), about)
    for ref, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(_target(query, ref).range())
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.PALETTE_CLASSIC))
    # No outlines in a stack: that of a series that is 0 would stand on top of all the others.
    panel.line_width(0 if stack else 1).show_points(look.VisibilityMode.NEVER).fill_opacity(75 if stack else 8)
    panel.tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    legend = common.VizLegendOptions().show_legend(True).placement(look.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(look.LegendDisplayMode.LIST).calcs([]))
    if stack:
        panel.stacking(common.StackingConfig().mode(look.StackingMode(stack)).group("A"))
    least, most = bounds
    if least is not None:
        panel.min(least)
    if most is not None:
        panel.max(most)
    if limit:
        style = common.GraphThresholdsStyleConfig().mode(look.GraphTresholdsStyleMode.DASHED)
        panel.thresholds_style(style)
    return panel


def bars(about: About, query: Query) -> bargauge.Panel:
    """One bar for each series: figures of the whole range."""
    panel = _described(bargauge.Panel(), about).with_target(_instant(query, "A")).max_data_points(1000).min(0)
    return (
        panel.orientation(look.VizOrientation.HORIZONTAL)
        .display_mode(look.BarGaugeDisplayMode.BASIC)
        .value_mode(look.BarGaugeValueMode.TEXT)
        .text(common.VizTextDisplayOptions().title_size(13).value_size(16))
        .show_unfilled(True)
        .min_viz_width(0)
        .min_viz_height(10)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    )


class Column(NamedTuple):
    expr: str
    unit: str
    steps: Steps = ()


def rows(about: About, labels: Mapping[str, str], columns: Mapping[str, Column]) -> table.Panel:
    """A table of figures of the whole range: a row for each set of `labels` (name -> heading), sorted by the first."""
    panel = _described(table.Panel(), about).max_data_points(1000).show_header(True)
    headings, order = dict(labels), {name: index for index, name in enumerate(labels)}
    for ref, (heading, column) in zip("ABCDEFGH", columns.items(), strict=False):
        panel.with_target(_instant(Query(column.expr), ref).format(PromQueryFormat.TABLE))
        value = f"Value #{ref}" if len(columns) > 1 else "Value"  # as Grafana's data source names them
        headings[value] = heading
        order[value] = len(order)
        values = [model.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.unit == PLAIN:
            values.append(model.DynamicConfigValue(id_val="decimals", value=0))  # increase() extrapolates
        if column.steps:
            thresholds = {"mode": "absolute", "steps": [{"value": v, "color": c} for v, c in column.steps]}
            values += [
                model.DynamicConfigValue(id_val="thresholds", value=thresholds),
                model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}),
            ]
        panel.override_by_name(heading, values)
    narrow = model.DynamicConfigValue(id_val="custom.minWidth", value=70)
    panel.override_by_regexp(".*", [narrow])  # Grafana's own 150 pixels push the last columns out of sight
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    shape = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": headings}
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=shape))
    first = next(iter(columns))
    return panel.sort_by([common.TableSortByFieldState().display_name(first).desc(True)])


def _described(panel: AnyPanel, about: About) -> AnyPanel:
    panel.title(about.title).description(about.description).unit(about.unit).datasource(SOURCE)
    panel.span(about.span).height(about.height)
    if about.decimals is not None:
        panel.decimals(about.decimals)
    steps = [model.Threshold(value=value, color=color) for value, color in about.steps]
    panel.thresholds(dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps))
    if not isinstance(panel, timeseries.Panel):
        panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel


def _target(query: Query, ref: str) -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(query.expr).legend_format(query.legend or "__auto").ref_id(ref)


def _instant(query: Query, ref: str) -> prometheus.Dataquery:
    return _target(query, ref).instant()
