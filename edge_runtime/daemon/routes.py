"""The one table of routes."""

from __future__ import annotations

from edge_runtime.daemon import (
    adapters_api,
    ask_api,
    collections_api,
    documents_api,
    gauges,
    index_api,
    models_api,
    openai_api,
    openapi,
    operator_api,
    score_api,
    search_api,
)
from edge_runtime.daemon.call import Route

ROUTES: tuple[Route, ...] = (
    *openai_api.ROUTES,
    *models_api.ROUTES,
    score_api.ROUTE,
    *ask_api.ROUTES,
    *search_api.ROUTES,
    *collections_api.ROUTES,
    *documents_api.ROUTES,
    *index_api.ROUTES,
    *operator_api.ROUTES,
    *adapters_api.ROUTES,
    gauges.ROUTE,
    openapi.ROUTE,
)
