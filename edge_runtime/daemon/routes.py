"""The one table of routes."""

from __future__ import annotations

from edge_runtime.daemon import knowledge_api, openai_api, openapi, operator_api
from edge_runtime.daemon.call import Route

ROUTES: tuple[Route, ...] = (*openai_api.ROUTES, *knowledge_api.ROUTES, *operator_api.ROUTES, openapi.ROUTE)
