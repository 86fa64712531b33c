"""What the dashboards share: variables, links, and panels with the same look."""

from grafana_foundation_sdk.builders import common as options
from grafana_foundation_sdk.builders import dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    DataSourceRef,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    ThresholdsMode,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")

# An expression has `@` where the selection by job and instance goes, and `[~]` for the window of a rate.
SELECTION = 'job=~"$job", instance=~"$instance"'

# The label `upstream` is absent for the main upstream. This names it.
MAIN = 'label_replace({}, "upstream", "main", "upstream", "^$")'


def selected(expression):
    return " ".join(expression.split()).replace("@", SELECTION).replace("[~]", "[$__rate_interval]")


def choice(name, label, query, description, *, regex="", all_value=".+"):
    """A variable whose values are the result of a query. At first all are chosen."""
    kind = 3 if query.startswith("query_result") else 1  # as the editor of Grafana numbers them
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query({"query": query, "refId": f"Variable{name.capitalize()}", "qryType": kind})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(all_value)
        .current(VariableOption(selected=True, text="All", value="$__all"))
    )
    return variable.regex(regex) if regex else variable


def new(title, uid, description, marker, *variables):
    """A dashboard. `marker` is a metric that each process to choose from has."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["tenantry"])
        .timezone("browser")
        .editable()
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-1h", "now")
        .link(
            dashboard.DashboardLink("Tenantry")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["tenantry"])
            .as_dropdown(False)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(
            dashboard.DatasourceVariable("datasource")
            .label("Data source")
            .description("The Prometheus that scrapes Tenantry.")
            .type("prometheus")
        )
    )
    board.with_variable(choice("job", "Job", f"label_values({marker}, job)", "The scrape job."))
    instances = f'label_values({marker}{{job=~"$job"}}, instance)'
    board.with_variable(choice("instance", "Instance", instances, "The process.", all_value=".*"))
    for variable in variables:
        board.with_variable(variable)
    return board


def row(board, title, *panels):
    """Adds a row. Its panels have to fill lines of 24 columns."""
    board.with_row(dashboard.Row(title))
    for panel in panels:
        board.with_panel(panel)


def query(expression, legend="", ref="A"):
    return prometheus.Dataquery().expr(selected(expression)).legend_format(legend).ref_id(ref).range()


def queries(panel, pairs):
    for number, (expression, legend) in enumerate(pairs):
        panel.with_target(query(expression, legend, chr(ord("A") + number)))
    return panel


def levels(*steps):
    """Colours from a value on: the first has none."""
    first, *rest = steps
    thresholds = [Threshold(value=None, color=first)] + [Threshold(value=value, color=color) for value, color in rest]
    return dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(thresholds)


def described(panel, title, description, unit, width, height):
    return panel.title(title).description(description).datasource(DATASOURCE).unit(unit).span(width).height(height)


def lines(title, description, unit, *pairs, width=8, stacked=False, least=0, decimals=None):
    """Lines over time. Each pair is an expression and the name of its lines."""
    panel = described(timeseries.Panel(), title, description, unit, width, 8)
    panel.legend(
        options.VizLegendOptions()
        .show_legend(True)
        .display_mode(LegendDisplayMode.TABLE)
        .placement(LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(options.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    panel.line_width(1).fill_opacity(30 if stacked else 5).show_points(VisibilityMode.NEVER)
    if least is not None:
        panel.min(least)
    if decimals is not None:
        panel.decimals(decimals)
    if stacked:
        panel.stacking(options.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return queries(panel, pairs)


def number(title, description, unit, expression, *colors, width=4, decimals=None):
    """One number, coloured by its value, with its course behind it."""
    panel = described(stat.Panel(), title, description, unit, width, 4)
    panel.graph_mode(BigValueGraphMode.AREA)
    panel.color_mode(BigValueColorMode.VALUE if colors else BigValueColorMode.NONE)
    panel.reduce_options(options.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.thresholds(levels(*(colors or ["text"])))
    if decimals is not None:
        panel.decimals(decimals)
    return panel.with_target(query(expression, title))


def heat(title, description, expression, unit="s", width=12):
    """How many values were in which bucket of a histogram."""
    panel = described(heatmap.Panel(), title, description, "short", width, 8)
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    panel.calculate(False).color(colors)
    panel.y_axis(heatmap.YAxisConfig().unit(unit))
    panel.tooltip(heatmap.HeatmapTooltip().mode(TooltipDisplayMode.SINGLE).y_histogram(True))
    return panel.with_target(query(expression, "{{le}}").format(PromQueryFormat.HEATMAP))


def columns(title, description, labels, *triples, width=24, height=12, links=None):
    """A table with a line for each set of labels. Each triple is an expression, the column's name and its unit."""
    panel = described(table.Panel(), title, description, "short", width, height)
    names = dict(labels)
    for position, (expression, name, unit) in enumerate(triples):
        ref = chr(ord("A") + position)
        panel.with_target(
            prometheus.Dataquery().expr(selected(expression)).ref_id(ref).instant().format(PromQueryFormat.TABLE)
        )
        names[f"Value #{ref}"] = name
        panel.override_by_name(name, [DynamicConfigValue(id_val="unit", value=unit)])
    for name, link in (links or {}).items():
        panel.override_by_name(name, [DynamicConfigValue(id_val="links", value=[link])])
    order = {name: position for position, name in enumerate(names)}
    tidy = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": names}
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(DataTransformerConfig(id_val="organize", options=tidy))
    panel.sort_by([options.TableSortByFieldState().display_name(triples[0][1]).desc(True)])
    return panel


def number_panels(board):
    """The dashboard as JSON's data, with an ID for each panel."""
    built = board.build()
    for link in built.links:
        link.placement = None  # in the bar, not in the menu of controls
    for number, panel in enumerate(built.panels, 1):
        panel.id_val = number
    return built
