"""The service against its own OpenAPI document, by schemathesis."""

import pytest
from api_calls import BEARER, GATED, TOKENS
from api_fuzzing import fuzz
from stage import JOB, launch_body, stage


@pytest.mark.parametrize("plan", ["success", "slow"], ids=["a finished job", "a live job"])
async def test_nothing_generated_from_the_document_finds_a_fault(tmp_path, plan):
    async with stage(plan, **GATED) as on:
        launched = await on.client.post("/launch", json=launch_body(), headers=BEARER)
        assert launched.status_code == 201
        if plan == "success":
            await on.until(lambda: JOB.lower() not in on.world.objects("Job"), "it is finished")

        code, report = await fuzz(on.url, tmp_path, token=TOKENS.partition(",")[0])

        assert code == 0, report
        assert (await on.client.get("/healthz")).status_code == 200
