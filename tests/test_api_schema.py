"""The service against its own OpenAPI document, by schemathesis."""

import pytest
from api_calls import GATED, TOKENS
from api_fuzzing import fuzz
from stage import stage


@pytest.mark.parametrize("access", ["token", "none"])
async def test_nothing_generated_from_the_document_finds_a_fault(access, tmp_path):
    settings = GATED if access == "token" else {}
    token = TOKENS.partition(",")[0] if access == "token" else ""
    async with stage("success", **settings) as on:
        code, report = await fuzz(on.url, tmp_path, token=token)

        assert code == 0, report
        assert (await on.client.get("/healthz")).status_code == 200
