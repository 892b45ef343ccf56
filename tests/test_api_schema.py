"""The service against its own OpenAPI document, by schemathesis."""

from api_calls import GATED, TOKENS
from api_fuzzing import fuzz
from stage import stage


async def test_nothing_generated_from_the_document_finds_a_fault(tmp_path):
    async with stage("success", **GATED) as on:
        code, report = await fuzz(on.url, tmp_path, token=TOKENS.partition(",")[0])

        assert code == 0, report
        assert (await on.client.get("/healthz")).status_code == 200
