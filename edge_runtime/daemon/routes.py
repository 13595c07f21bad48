"""The one table of routes."""

from __future__ import annotations

from edge_runtime.daemon import (
    adapters_api,
    gauges,
    knowledge_api,
    models_api,
    openai_api,
    openapi,
    operator_api,
    score_api,
)
from edge_runtime.daemon.call import Route

ROUTES: tuple[Route, ...] = (
    *openai_api.ROUTES,
    *models_api.ROUTES,
    score_api.ROUTE,
    *knowledge_api.ROUTES,
    *operator_api.ROUTES,
    *adapters_api.ROUTES,
    gauges.ROUTE,
    openapi.ROUTE,
)
