"""The OpenAPI document against the live server: whatever it allows, nothing makes the server fail."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from servers import Server

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_no_request_that_the_document_allows_makes_the_server_fail(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen: dict[str, set[int]] = {}
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=12,
            deadline=None,
            database=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            case.path_parameters = {**(case.path_parameters or {})}
            if "name" in case.path_parameters:
                case.path_parameters["name"] = "digits"
            response = case.call()
            seen.setdefault(case.operation.path, set()).add(response.status_code)
            assert response.status_code < 500, (case.as_curl_command(), response.text)
            if response.status_code >= 400:
                assert response.headers["content-type"] in (
                    "application/problem+json",
                    ["application/problem+json"],
                ), response.text

        check()
    assert "/v1/models/{name}/sample" in seen
    assert 200 in seen["/v1/models/{name}/sample"]
