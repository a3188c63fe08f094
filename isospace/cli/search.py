"""The commands that search: search, serve."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from isospace.cli.common import (
    BackendOption,
    CollectionArgument,
    DeviceOption,
    JsonOption,
    SnapshotOption,
    StoreArgument,
    engine_of,
    parse_pairs,
    shortened,
    warn,
)
from isospace.cli.serve_config import LIMITS, read_serve_config
from isospace.cli.terminal import print_json, printable, say, say_marked
from isospace.errors import ConfigError
from isospace.search.locality import LOCAL_CACHE_MB, Local

if TYPE_CHECKING:
    from isospace.search.highlight import Spans
    from isospace.search.hits import Hit
    from isospace.search.options import SearchOptions
    from isospace.search.shards.client import ShardOptions

_INDENT = " " * 4
_WIDEST = 100
Mode = Literal["auto", "exact", "approximate", "quantized", "tiered", "lexical", "sparse", "hybrid"]
RerankerOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", exists=True, file_okay=False, help="Rerank hits with the cross-encoder in this folder."
    ),
]


LocalOption = Annotated[
    Local,
    typer.Option(
        "--local",
        help="copy: keep a copy of the snapshot on this machine, which is searched fastest. none: search published "
        "files in the store, by ranges (recipe.search.remote).",
    ),
]
LocalCacheOption = Annotated[
    int,
    typer.Option(
        "--local-cache-mb",
        metavar="MB",
        min=0,
        help="With --local none: megabytes of what was read last that are kept on disk; 0 for none.",
    ),
]


def search(
    store: StoreArgument,
    collection: CollectionArgument,
    queries: Annotated[list[str] | None, typer.Argument(metavar="QUERY", help="One or more texts.")] = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CHUNK",
            help="In place of a query: find what is like the chunk of this ID. With several, like their mean.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Maximum number of hits for each query.")] = 5,
    mode: Annotated[
        Mode,
        typer.Option(
            help="exact, approximate, quantized, tiered, lexical, sparse, hybrid, or auto (approximate for large "
            "collections with cells, else exact if floats are stored, otherwise quantized)."
        ),
    ] = "auto",
    where: Annotated[
        str | None,
        typer.Option(
            "--filter", metavar="EXPRESSION", help="Filter by metadata, such as 'lang == \"en\" and year >= 2020'."
        ),
    ] = None,
    reranker: RerankerOption = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another search option, such as rescore=10. Repeatable."),
    ] = None,
    snapshot: SnapshotOption = "production",
    local: LocalOption = "copy",
    local_cache_mb: LocalCacheOption = LOCAL_CACHE_MB,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find the chunks of a collection that match a query best, or that are most like others."""
    if bool(queries) == bool(like):
        raise ConfigError(
            f"{len(queries or ())} queries and {len(like or ())} --like; expected either queries, or chunks to find "
            "others like them."
        )
    values = {"k": k, "mode": mode, "filter": where, "rerank": reranker is not None}
    engine, options = engine_of(backend, device), _options({**values, **parse_pairs("--set", settings, "rescore=10")})
    from isospace.search.highlight import snapshot_highlighter
    from isospace.search.open_index import open_index
    from isospace.search.options import WORD_MODES

    opened = _reranker(reranker)
    # What a mode does not need is not loaded: the model of a sparse encoder takes seconds.
    encode, sparse = bool(queries) and options.mode not in WORD_MODES, bool(queries) and options.uses_sparse
    index = open_index(
        store,
        collection,
        snapshot,
        engine=engine,
        reranker=opened,
        encode=encode,
        sparse=sparse,
        local=local,
        local_cache_mb=local_cache_mb,
    )
    answer = index.answer(queries, options) if queries else index.answer_like(like or (), options)
    results = answer.hits
    lexical = index.view.lexical
    marks = [snapshot_highlighter(query, lexical) for query in queries] if queries else [_mark_nothing]
    asked = queries or [f"like {', '.join(like or ())}"]
    if answer.degraded:
        say(f"warning: words alone were searched, since the query cannot be embedded: {answer.degraded}", err=True)
    if as_json:
        heads: list[dict[str, Any]] = [{"query": query} for query in queries] if queries else [{"like": like}]
        listed = [
            {**head, "hits": [{**hit.as_dict(), "highlights": mark(hit.text)} for hit in hits]}
            for head, hits, mark in zip(heads, results, marks, strict=True)
        ]
        for entry, visited in zip(listed, answer.visited, strict=True):
            entry |= {} if visited is None else {"visited": asdict(visited)}
        found = {
            "space_id": answer.space_id,
            "snapshot": answer.snapshot,
            "snapshot_id": answer.snapshot_id,
            "results": listed,
        }
        print_json(found | ({"degraded": answer.degraded} if answer.degraded else {}))
        return
    for query, hits, mark in zip(asked, results, marks, strict=True):
        _print_hits(query, hits, options, mark, is_only=len(asked) == 1)


def serve(
    context: typer.Context,
    store: StoreArgument,
    collection: CollectionArgument,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on; any other than loopback requires API keys.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")] = 8000,
    keys: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with one API key per line, or a key, `filter:`, and what it may see. Default: keys in "
            "$ISOSPACE_API_KEYS.",
        ),
    ] = None,
    token_key: Annotated[
        Path | None,
        typer.Option(
            "--token-key",
            metavar="FILE",
            help="Accept signed tokens (JWT), verified with this public key in PEM; needs --token-filter.",
        ),
    ] = None,
    token_secret: Annotated[
        Path | None,
        typer.Option(
            "--token-secret",
            metavar="FILE",
            help="Accept signed tokens (JWT), verified with the secret in this file; needs --token-filter.",
        ),
    ] = None,
    token_filter: Annotated[
        str | None,
        typer.Option(
            "--token-filter",
            metavar="EXPRESSION",
            help="What the bearer of a token may see, with claims: 'tenant == $tenant and group in $groups'.",
        ),
    ] = None,
    token_audience: Annotated[
        str | None, typer.Option("--token-audience", metavar="TEXT", help="What the claim `aud` of a token must be.")
    ] = None,
    token_issuer: Annotated[
        str | None, typer.Option("--token-issuer", metavar="TEXT", help="What the claim `iss` of a token must be.")
    ] = None,
    reranker: RerankerOption = None,
    watch: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="How often to check whether the alias has moved, in seconds; 0 for never."
        ),
    ] = 10.0,
    canonical: Annotated[bool, typer.Option(help="Let queries with the same tokens share a cached vector.")] = False,
    semantic: Annotated[
        float | None,
        typer.Option(
            metavar="COSINE",
            help="Reuse the hits of an earlier query with at least this cosine similarity. Default: never.",
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            metavar="COUNT",
            min=1,
            help="Maximum number of concurrent requests; others get status 429. Short for --limit requests=COUNT; "
            "default: 128.",
        ),
    ] = None,
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="NAME=VALUE",
            help="Change a limit, such as texts=4096 or request_seconds=600; docs/http-api.md lists them. Repeatable.",
        ),
    ] = None,
    access_log: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            envvar="ISOSPACE_ACCESS_LOG",
            help="Append a line of JSON for each request, without texts and keys, to this file; - for standard output.",
        ),
    ] = None,
    origins: Annotated[
        list[str] | None,
        typer.Option(
            "--cors",
            metavar="ORIGIN",
            help="Let pages of this origin, such as https://example.org, send requests from a browser; * for all. "
            "Repeatable.",
        ),
    ] = None,
    token_ids: Annotated[
        str | None,
        typer.Option(
            "--token-ids",
            metavar="TOKENIZER",
            help="Tokenizer whose IDs clients may send instead of texts, as LangChain does by default: "
            "tiktoken:cl100k_base, or the path of a tokenizer.json. Default: the encoder's own.",
        ),
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option("--take-over", help="Listen on a port that another service still uses, to replace that service."),
    ] = False,
    log_share: Annotated[
        float, typer.Option("--log", metavar="SHARE", min=0, max=1, help="Share of searches to log, from 0 to 1.")
    ] = 0.0,
    log_texts: Annotated[bool, typer.Option(help="Log the text of queries, not only a hash.")] = True,
    shadow: Annotated[
        str | None,
        typer.Option(
            metavar="SNAPSHOT", help="Snapshot that also answers logged queries, for comparison; needs --log."
        ),
    ] = None,
    watch_recall: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            min=0,
            max=1,
            help="Share of approximately answered queries that is also searched exactly, in the background; /metrics "
            "shows the observed recall.",
        ),
    ] = 0.01,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Serve one of N shards of the collection, such as 2/3, to a service that is started with --shards.",
        ),
    ] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option(
            "--shards",
            metavar="URL",
            help="Search the shards that are served there, instead of parts on this machine. Repeat it for each shard, "
            "or separate them by commas. $ISOSPACE_SHARD_KEY is the key that they want.",
        ),
    ] = None,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial",
            help="With --shards: answer from the other shards if one is missing, and say so, instead of status 503.",
        ),
    ] = False,
    shard_seconds: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0.001, help="With --shards: longest time for one request to a shard."),
    ] = 10.0,
    snapshot: SnapshotOption = "production",
    local: LocalOption = "copy",
    local_cache_mb: LocalCacheOption = LOCAL_CACHE_MB,
    device: DeviceOption = "auto",
    backend: BackendOption = "auto",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            is_eager=True,
            callback=read_serve_config,
            help="YAML file with values of these options, such as `port: 9000` and `limits: {texts: 4096}`. Options on "
            "the command line take precedence.",
        ),
    ] = None,
) -> None:
    """Serve search and embeddings of a collection over HTTP."""
    from isospace.collection.shard import parse_shard
    from isospace.service.keys import read_keys
    from isospace.service.limits import make_limits
    from isospace.service.settings import ServiceOptions, Settings
    from isospace.service.tokens import token_rules

    changed = {**context.meta.get(LIMITS, {}), **parse_pairs("--limit", limits, "texts=4096")}
    if requests is not None:
        changed["requests"] = requests
    options = ServiceOptions(
        store=store,
        collection=collection,
        snapshot=snapshot,
        settings=Settings(
            host=host,
            port=port,
            keys=read_keys(keys),
            keys_file=keys,
            tokens=token_rules(token_key, token_secret, token_filter, token_audience, token_issuer),
            limits=make_limits(changed),
            access_log=access_log,
            token_ids=token_ids,
            origins=tuple(origins or ()),
            take_over=take_over,
        ),
        engine=engine_of(backend, device),
        reranker=reranker,
        watch_seconds=watch,
        canonical=canonical,
        semantic=semantic,
        log_share=log_share,
        log_texts=log_texts,
        shadow=shadow,
        watch_recall=watch_recall,
        local=local,
        local_cache_mb=local_cache_mb,
        shard=None if shard is None else parse_shard(shard),
        shards=_shard_options(shards, allow_partial, shard_seconds),
    )
    from isospace.service.start import start

    # On standard output, the lines of the access log stand alone.
    start(options, on_progress=warn if access_log == "-" else say)


def _shard_options(shards: list[str] | None, allow_partial: bool, seconds: float) -> ShardOptions | None:
    urls = [url.strip() for given in shards or () for url in given.split(",") if url.strip()]
    if not urls:
        if allow_partial:
            raise ConfigError("--allow-partial: only shards can be missing. Give --shards URL for each of them.")
        return None
    from isospace.search.shards.client import ShardOptions

    return ShardOptions(tuple(urls), allow_partial, seconds)


def _options(values: dict[str, Any]) -> SearchOptions:
    """Check the options, including the filter, before anything is opened."""
    from isospace.search.options import search_options

    options = search_options(values)
    if options.filter is not None:
        from isospace.search.filters import parse_filter

        parse_filter(options.filter)
    return options


def _reranker(folder: Path | None) -> Any:
    if folder is None:
        return None
    from isospace.search.reranker import open_reranker

    return open_reranker(folder)


def _mark_nothing(_text: str) -> Spans:
    return []


def _print_hits(
    query: str, hits: Sequence[Hit], options: SearchOptions, mark: Callable[[str], Spans], *, is_only: bool
) -> None:
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    if not hits:
        say(f"{shortened(query, width - 40)}: nothing found{_why_nothing(options)}")
        return
    if not is_only:
        say(shortened(query, width), bold=True)
    # Where documents are grouped, a page leaves out documents, and how many hits these had is not known.
    before = options.offset or 0 if options.group_by is None else 0
    for rank, hit in enumerate(hits, start=before + 1):
        lines, heading = hit_lines(rank, hit, width), 2 if hit.title else 1
        say("\n".join(lines[:heading]))
        for line in lines[heading:]:
            say_marked(line, mark)


def _why_nothing(options: SearchOptions) -> str:
    if options.min_score is not None:
        return f" with a score of {options.min_score:g} or more"
    if options.offset:
        return f" after the first {options.offset}"
    return f"; {options.mode} search needs a word in common" if options.mode in ("lexical", "sparse") else ""


def hit_lines(rank: int, hit: Hit, width: int) -> list[str]:
    """Return a hit as lines: rank, scores, and title; document; headings, if any; text (two without a title)."""
    document = hit.doc_id if hit.uri in ("", hit.doc_id) else f"{hit.doc_id} · {hit.uri}"
    heading, place = (hit.title, [document]) if hit.title else (document, [])
    room = width - len(_INDENT)
    shown = printable(hit.text)
    text = textwrap.wrap(shown, room, max_lines=1 if place else 2, placeholder=" …", break_on_hyphens=False)
    start = f"{rank:>2}  {hit.score:.4f}  " + ("" if hit.percentile is None else f"{hit.percentile:.2f} %  ")
    first = start + shortened(heading, width - len(start))
    # The title is there already.
    headings = hit.heading_path[1:] if hit.heading_path[:1] == [hit.title] else hit.heading_path
    path = [" > ".join(headings)] if headings else []
    return [first, *(_INDENT + line for line in [*(shortened(one, room) for one in (*place, *path)), *text])]
