"""What all dashboards have: their names, variables, links to each other, refresh."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as model

from grafana.source.panels import SOURCE, Panel

TITLES: Final = {
    "gateway-cost": "Cost and savings",
    "gateway-routing": "Routing and reliability",
    "gateway-budgets": "Budgets",
    "gateway-itself": "Gateway itself",
}
"""uid -> title; also the order of the links at the top."""

# name -> heading, and where its values come from
VARIABLES: Final = {
    "team": ("Team", "label_values(gateway_requests_total, team)"),
    "route": ("Route", "label_values(gateway_requests_total, route)"),
    "model": ("Model", "label_values(gateway_cost_usd_total, model)"),
    "budget": ("Budget", "label_values(gateway_budget_limit_usd, budget)"),
}


def frame(uid: str, description: str, *variables: str) -> dashboard.Dashboard:
    """An empty dashboard that asks for the data source and for these variables, each "All" at first."""
    page = dashboard.Dashboard(TITLES[uid]).uid(uid).description(description).tags(["open-model-gateway"])
    page.time("now-24h", "now").refresh("1m").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
    page.readonly()
    page.with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    for name in variables:
        label, values = VARIABLES[name]
        asked = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(values)
        asked.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
        page.with_variable(asked.multi(True).include_all(True).all_value(".*").current(_all()))
    for other, title in TITLES.items():
        if other != uid:
            link = dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(f"/d/{other}")
            page.link(link.include_vars(True).keep_time(True).icon("dashboard"))
    return page


def _all() -> model.VariableOption:
    return model.VariableOption(text="All", value="$__all", selected=True)


def section(page: dashboard.Dashboard, title: str, *panels: Panel) -> None:
    """A heading and what stands below it, from left to right, then down."""
    page.with_row(dashboard.Row(title))
    for panel in panels:
        page.with_panel(panel)
