"""Changes of single lines that a test beside the code has to notice.

Texts are short, so that most edits nearby leave them in place; each is in its file exactly once.
"""

from __future__ import annotations

from dataclasses import dataclass

_TESTS = "tests/isospace/"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes
    ----------
    name
        Unique; begins with the area of the code.
    file
        The file that is changed.
    old, new
        The text that is replaced, and its replacement.
    tests
        The files of tests beside the code.
    reason
        Why it survives, if it does by design.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    reason: str = ""


def _mutants(file: str, tests: str, changes: dict[str, tuple[str, ...]]) -> tuple[Mutant, ...]:
    """Return the mutants of one file: old and new text, and a reason, by name."""
    beside = tuple(_TESTS + name for name in tests.split())
    return tuple(
        Mutant(name, f"isospace/{file}", change[0], change[1], beside, *change[2:]) for name, change in changes.items()
    )


_TRANSFORM = (
    *_mutants(
        "transform/affine.py",
        "transform/test_grids.py",
        {
            "affine: sums up to 2**55": ("EXACT_BITS = 53", "EXACT_BITS = 55"),
            "affine: sums up to 2**60": ("EXACT_BITS = 53", "EXACT_BITS = 60"),
            "affine: a sum of exactly 2**53": (">= 2**EXACT_BITS", "> 2**EXACT_BITS"),
            "affine: output clip doubled": (
                "_saturate(result, 2.0**OUTPUT_BITS",
                "_saturate(result, 2.0 * 2.0**OUTPUT_BITS",
            ),
            "affine: offset of documents for queries": ("affine.offsets[ROLES.index(role)]", "affine.offsets[0]"),
            "affine: saturated inputs are not counted": (", saturated + clipped", ", clipped"),
            "affine: no saturation below the range": ("float(values.min()) >= -limit", "True"),
            "affine: infinity is let in": ("bool(xp.isfinite(raw).all())", "not bool(xp.isnan(raw).any())"),
            "affine: squares are not split": ("float(plain.max()) < 2.0**EXACT_BITS", "float(plain.max()) < 2.0**60"),
            "affine: a zero vector is divided by zero": ("norms[norms == 0] = 1.0", "norms[norms < 0] = 1.0"),
            "affine: the low limb is left out": ("exact += _times(step, low)", "pass"),
        },
    ),
    *_mutants(
        "transform/fixed_point.py",
        "transform/test_grids.py",
        {
            "fixed point: no headroom": ("_HEADROOM = 2.0", "_HEADROOM = 1.0"),
            "fixed point: no spare bit": ("EXACT_BITS - 2 -", "EXACT_BITS -"),
            "fixed point: two limbs are never taken": ("bits, limbs = 2 * LIMB_BITS, 2", "pass"),
        },
    ),
    *_mutants(
        "transform/rotation.py",
        "transform/test_rotation.py",
        {
            "rotation: sums up to 2**55": ("_EXACT_BITS = 53", "_EXACT_BITS = 55"),
            "rotation: sums up to 2**60": ("_EXACT_BITS = 53", "_EXACT_BITS = 60"),
            "rotation: sums of exactly 2**53": (">= 2**_EXACT_BITS", "> 2**_EXACT_BITS"),
            "rotation: columns are not summed": ("float(sums.sum(axis=0).max(initial=0.0))", "0.0"),
            "rotation: no lower clip": ("2.0**exponent), -limit, limit)", "2.0**exponent), -2 * limit, limit)"),
            "rotation: saturation below is not counted": (
                "np.abs(vectors.astype(np.float64)) * 2.0**exponent >",
                "vectors.astype(np.float64) * 2.0**exponent >",
            ),
            "rotation: back is forth": ("grid @ rotation.matrix.astype", "grid @ rotation.matrix.T.astype"),
            "rotation: signs as LAPACK leaves them": ("q * np.sign(np.diagonal(r))", "q"),
            "rotation: a grid for half the longest": (
                "return GRID_BITS - 1 - math.ceil",
                "return GRID_BITS + 1 - math.ceil",
            ),
        },
    ),
    *_mutants(
        "transform/fit.py",
        "transform/test_fit_limits.py",
        {
            "fit: epsilon is ignored": (
                "spectrum.ridged[varying] ** -spec.exponent",
                "spectrum.values[varying] ** -spec.exponent",
            ),
            "fit: one mean for both roles": ("return documents, estimates.query_mean", "return documents, documents"),
            "fit: rank tolerance of a tenth": ("_RANK_TOLERANCE = 1e-10", "_RANK_TOLERANCE = 1e-1"),
            "fit: exactly enough vectors are too few": (
                "count >= min_ratio * dimension",
                "count > min_ratio * dimension",
            ),
        },
    ),
    *_mutants(
        "transform/moments.py",
        "transform/test_moments.py",
        {
            "moments: biased covariance": ("max(self.count - 1, 1)", "max(self.count, 1)"),
            "moments: means as far apart as they are": ("(left.count * right.count / count)", "left.count"),
        },
    ),
    *_mutants(
        "transform/sample_checks.py",
        "transform/test_sample_checks.py",
        {"sample: components up to 2**44": ("LARGEST_COMPONENT = 2.0**40", "LARGEST_COMPONENT = 2.0**44")},
    ),
    *_mutants(
        "transform/quantizers/int8.py",
        "transform/test_quantizer_ranges.py",
        {
            "int8: saturation below is not counted": ("np.abs(steps) > _SYMMETRIC if", "steps > _SYMMETRIC if"),
            "int8: affine saturation below is not counted": ("(steps < 0) | (steps > _STEPS)", "(steps > _STEPS)"),
            "int8: code -128 of symmetric codes": ("-_SYMMETRIC, _SYMMETRIC)", "-_SYMMETRIC - 1, _SYMMETRIC)"),
        },
    ),
    *_mutants(
        "transform/quantizers/rabitq.py",
        "transform/test_quantizer_ranges.py",
        {"rabitq: zero counts as positive": ("np.packbits(rotated > 0", "np.packbits(rotated >= 0")},
    ),
    *_mutants(
        "transform/quantizers/binary.py",
        "transform/test_quantizer_ranges.py",
        {
            "binary: the threshold itself is a one": (
                "self._rotated(vectors) > self.threshold",
                "self._rotated(vectors) >= self.threshold",
            )
        },
    ),
    *_mutants(
        "transform/quantizers/floats.py",
        "transform/test_quantizer_ranges.py",
        {
            "float16: no lower clip": ("np.clip(vectors, -_LARGEST_HALF", "np.clip(vectors, None"),
            "float16: saturation below is not counted": (
                "(np.abs(vectors) > _LARGEST_HALF)",
                "(vectors > _LARGEST_HALF)",
            ),
        },
    ),
    *_mutants(
        "transform/quantizers/arrays.py",
        "transform/test_quantizer_ranges.py",
        {
            "arrays: NaN in parameters": (" or not np.isfinite(array).all()", ""),
            "arrays: a scale of zero": ("(array > 0).all()", "(array >= 0).all()"),
        },
    ),
)
_HANDSHAKE = (
    *_mutants(
        "transform/space.py",
        "transform/test_handshake.py",
        {
            "space: parameters are not hashed": ("(PARAMS, record.params_sha256), ", ""),
            "space: probes are not hashed": ("(PROBES, record.probes_sha256)", ""),
            "space: another space under this name": ("if record.space_id != space_id:", "if False:"),
            "space: the transform is not run": ("check_transform(space.transform, space.probes)", "pass"),
            "space: another format": ("!= FORMAT:", "is None:"),
        },
    ),
    *_mutants(
        "transform/probes.py",
        "transform/test_handshake.py",
        {
            "handshake: NaN for a raw vector": (
                "if not cosines[worst] >= min_cosine",
                "if cosines[worst] < min_cosine",
            ),
            "handshake: as many tokens are the same tokens": (
                "if ids != expected.tolist():",
                "if len(ids) != len(expected):",
            ),
            "handshake: lengths of raw vectors": ("    _require_same_length(probes[", "    (lambda *_: None)(probes["),
            "handshake: equal shapes are equal bits": ("expected.tobytes() == computed.tobytes()", "True"),
            "handshake: only queries have to agree bit for bit": ("bitwise = bitwise and ", "bitwise = "),
        },
    ),
    *_mutants(
        "encoding/registry/record.py",
        "encoding/registry/test_stored_files.py",
        {"registry: the record of another encoder": ("if record.encoder_id != encoder_id:", "if False:")},
    ),
    *_mutants(
        "encoding/registry/files.py",
        "encoding/registry/test_stored_files.py",
        {
            "registry: files of the model are not hashed": ("if actual != expected:", "if actual is None:"),
            "registry: a repair trusts what has the size": (
                "confined(path)) == expected",
                "confined(path)).size == expected.size",
            ),
            "registry: an export that was there is replaced": (
                "store.create_if_absent(path, seal(",
                "store.write(path, seal(",
            ),
            "registry: a pickled module beside a safe one": ("if pickled or not safe:", "if not safe:"),
        },
    ),
    *_mutants(
        "encoding/registry/reference_vectors.py",
        "encoding/registry/test_reference.py",
        {
            "reference: any vectors will do": ("smallest_cosine(reference, reference_vectors(encoder))", "1.0"),
            "reference: probes longer than the encoder takes": (
                "if all(len(sequence) <= record.max_tokens",
                "if any(len(sequence) <= record.max_tokens",
            ),
        },
    ),
    *_mutants(
        "encoding/embedder.py",
        "encoding/test_embedder.py",
        {
            "embedder: another encoder": ("if chosen.record.encoder_id != record.encoder_id:", "if False:"),
            "embedder: no handshake": ("agreement = check_encoder(", "agreement = (lambda *_, **__: None)("),
            "embedder: queries as documents": (
                "apply_transform(self.space.transform, raw, role)",
                'apply_transform(self.space.transform, raw, "document")',
            ),
        },
    ),
    *_mutants(
        "encoding/windows.py",
        "encoding/test_windows.py",
        {
            "windows: the last tokens are left out": (", tokens - capacity]", "]"),
            "windows: two windows are not normalized": ("np.asarray(counts) > 1", "np.asarray(counts) > 2"),
        },
    ),
    *_mutants(
        "encoding/pooling.py",
        "encoding/test_pooling.py",
        {
            "pooling: the last token of the prompt": ("position > prompt_tokens", "position >= prompt_tokens"),
            "pooling: long words weigh more": ("(len(pieces) * pieces[word])", "(len(pieces) * pieces.mean())"),
            "pooling: cls is the first token of the prompt": ("[pooled.argmax(axis=1)]", "[mask.argmax(axis=1)]"),
        },
    ),
)
_COLLECTION = (
    *_mutants(
        "collection/raw_vectors.py",
        "collection/test_vector_parts.py",
        {
            "raw vectors: content is not hashed": ('if content != metadata.get("content_sha256"):', "if False:"),
            "raw vectors: another role": (', ("role", PurePosixPath(path).parent.name)', ","),
            "raw vectors: the last part counts": ("if key in wanted and key not in found:", "if key in wanted:"),
            "raw vectors: a missing one is whatever memory holds": ("    if places:\n", "    if False:\n"),
            "raw vectors: located in the last part": ("min(part) AS home", "max(part) AS home"),
        },
    ),
    *_mutants(
        "collection/segments.py",
        "collection/test_segments.py",
        {
            "segments: one without a space": ("if recorded != space_id:", "if recorded not in (space_id, None):"),
            "segments: vectors of another width": ("if column.type != pa.list_(pa.float32(), width):", "if False:"),
            "segments: codes of another width": ("if column.type != pa.binary(width * dtype.itemsize):", "if False:"),
        },
    ),
    *_mutants(
        "collection/snapshot.py",
        "collection/test_snapshot.py",
        {
            "snapshot: under another number": (
                "(manifest.collection, manifest.sequence) != (collection, sequence)",
                "manifest.collection != collection",
            ),
            "snapshot: another run's commit is ours": (
                'existing.provenance.get("run_id") == manifest.provenance.get("run_id")',
                "existing.snapshot_id == manifest.snapshot_id",
            ),
            "snapshot: identity without chunking": ('"chunking_id": chunking_id, "documents"', '"documents"'),
            "snapshot: digest of files without deletions": (
                "([manifest.deletions] if manifest.deletions else [])",
                "[]",
            ),
            "snapshot: short references": ("if len(reference) >= 8:", "if len(reference) >= 1:"),
            "snapshot: the oldest of equal content": ("for number in reversed(numbers):", "for number in numbers:"),
            "snapshot: deletions are not among the files": (
                "for ref in (self.deletions, self.quarantine)",
                "for ref in (self.quarantine,)",
            ),
        },
    ),
    *_mutants(
        "collection/alias.py",
        "collection/test_alias.py",
        {
            "alias: a replaced snapshot": ("if manifest.snapshot_id != entry.snapshot_id:", "if False:"),
            "alias: forward to the same number": (
                "entry.snapshot >= manifest.sequence",
                "entry.snapshot > manifest.sequence",
            ),
            "alias: compacted after a rollback": (" and not is_current", ""),
            "alias: a rollback to the same content": ("stack[-1] = entry", "stack.append(entry)"),
            "alias: of a snapshot that was removed": (
                "if entry is not None and not store.exists(",
                "if False and not store.exists(",
            ),
        },
    ),
    *_mutants(
        "collection/live_rows.py",
        "collection/test_live_rows.py",
        {
            "live rows: deleted rows are read": (
                "return without_documents(table, deleted).select(",
                "return table.select(",
            ),
            "live rows: deleted everywhere": (
                "frozenset(deleted.get(part.name, ()))",
                "frozenset().union(*deleted.values())",
            ),
        },
    ),
)
_PIPELINE = (
    *_mutants(
        "pipeline/scan/diff.py",
        "pipeline/scan/test_changes.py",
        {
            "scan: a document that moved": (" AND s.uri = b.uri THEN", " THEN"),
            "scan: unreadable is removed": (
                "IN (SELECT doc_id FROM quarantine WHERE doc_id IS NOT NULL)",
                "IN (SELECT doc_id FROM quarantine WHERE false)",
            ),
            "scan: all may vanish": ("> runtime.max_removed_share * before", "> before"),
            "scan: exactly the share may not vanish": (
                "> runtime.max_removed_share * before",
                ">= runtime.max_removed_share * before",
            ),
            "scan: exactly the share is not quarantined": (
                "share > runtime.max_quarantined_share",
                "share >= runtime.max_quarantined_share",
            ),
            "scan: old versions stay": ("status = 'removed' OR status = 'changed'", "status = 'removed'"),
            "scan: removed documents in the digest": (
                "FROM live WHERE status <> 'removed' ORDER BY",
                "FROM live ORDER BY",
            ),
        },
    ),
    *_mutants(
        "pipeline/scan/select.py",
        "pipeline/scan/test_changes.py",
        {"scan: until includes its moment": ("at < until", "at <= until")},
    ),
    *_mutants(
        "pipeline/scan/stage.py",
        "pipeline/scan/test_changes.py",
        {
            "scan: forgotten documents come back": ("if item.doc_id in self.doc_ids:", "if False:"),
            "scan: parts of one character less": (
                "size + len(document.text) > characters",
                "size + len(document.text) >= characters",
            ),
        },
    ),
    *_mutants(
        "pipeline/encode/plan.py",
        "pipeline/encode/test_plan.py",
        {
            "plan: a stale plan covers": ("return bool(uncovered == 0)", "return True"),
            "plan: encoded texts are encoded again": (
                "SELECT * FROM texts ANTI JOIN vectors USING (chunk_hash)",
                "SELECT * FROM texts",
            ),
            "plan: shards of one token less": (
                "if spent and spent + tokens > budget:",
                "if spent and spent + tokens >= budget:",
            ),
            "plan: finished shards are planned": ("s.shard_id) not in finished", "s.shard_id) is not None"),
        },
    ),
    *_mutants(
        "pipeline/encode/shards.py",
        "pipeline/encode/test_shards.py",
        {
            "encode: texts are not hashed": ("if any(hashlib.", "if False and any(hashlib."),
            "encode: documents as queries": ('encoder.encode(texts, "document")', 'encoder.encode(texts, "query")'),
            "encode: with another encoder": ("if encoder.record.encoder_id != run.encoder_id:", "if False:"),
        },
    ),
    *_mutants(
        "pipeline/segment.py",
        "pipeline/test_segment.py",
        {
            "segment: documents as queries": (
                'apply_transform(space.transform, raw, "document")',
                'apply_transform(space.transform, raw, "query")',
            ),
            "segment: a repair trusts what is there": ("if trusted and (finished", "if (finished"),
            "segment: the fewest saturated": ("beyond = max(", "beyond = min("),
            "segment: zero vectors": ("(norms > 0) & np.isfinite(norms)", "np.isfinite(norms)"),
        },
    ),
    *_mutants(
        "collection/segments.py",
        "pipeline/test_segment.py",
        {"segment: lengths off by a hundredth": ("NORM_TOLERANCE = 1e-6", "NORM_TOLERANCE = 1e-2")},
    ),
    *_mutants(
        "pipeline/run.py",
        "pipeline/test_run.py",
        {
            "run: a repair does not hash what it trusts": (" and self.store.digest(path) == digests[path]", ""),
            "run: files of another size": ("if sizes.get(ref.path) != ref.size]", "if ref.path not in sizes]"),
            "run: another chunking keeps its parts": (" or base.chunking_id != run.chunking_id", ""),
        },
    ),
    *_mutants(
        "pipeline/commit.py",
        "pipeline/test_commit.py",
        {
            "commit: a repair of equal content": (" and not run.damaged:", ":"),
            "commit: other files of equal content": (" and set(base.files()) == set(manifest.files()):", ":"),
            "commit: a file is gone": ("if lost := damaged_files(run.store, manifest):", "if lost := list[str]():"),
            "commit: the gate is not asked": (" or promotion_problem(run.store, commit.manifest, alias)", ""),
            "commit: an alias goes back": ("forward_only=True", "forward_only=False"),
        },
    ),
    *_mutants(
        "pipeline/fit/choose.py",
        "pipeline/fit/test_decision.py",
        {
            "choose: p equal to the level": ("if figures.p < level and", "if figures.p <= level and"),
            "choose: evidence of the half that ranks": (
                "rest = values[~first] - plain[~first]",
                "rest = values[first] - plain[first]",
            ),
            "choose: a gain of zero": (" and figures.gain > 0:", ":"),
        },
    ),
    *_mutants(
        "pipeline/fit/trial.py",
        "pipeline/fit/test_decision.py",
        {"trial: ties with the last are cut": ("scores >= last", "scores > last")},
    ),
)
_GATE = (
    *_mutants(
        "evaluation/gate/judge.py",
        "evaluation/gate/test_judge.py",
        {
            "gate: p equal to the level": ("p < rule.p, gain", "p <= rule.p, gain"),
            "gate: key without digests of files": ('"files": files_digest(manifest),', ""),
            "gate: key without the lexical index": ('"lexical": _lexical_digest(store, manifest),', ""),
            "gate: NaN for a bound": (
                "if not math.isfinite(rule.value) or not math.isfinite(rule.p or 0.0):",
                "if False:",
            ),
            "gate: NaN for a figure": ("if figure is None or not math.isfinite(figure):", "if figure is None:"),
            "gate: exactly the bound": ("value >= rule.value if", "value > rule.value if"),
            "gate: exactly enough queries": ("if len(names) < needed:", "if len(names) <= needed:"),
            "gate: a loss of exactly the margin": ("gain >= -rule.value", "gain > -rule.value"),
            "gate: no margin in the test": (
                "randomization_p(differences + rule.value)",
                "randomization_p(differences)",
            ),
        },
    ),
    *_mutants(
        "evaluation/gate/rules.py",
        "evaluation/gate/test_rules.py",
        {"gate: an infinite bound is read": ("if not math.isfinite(rule.value):", "if False:")},
    ),
    *_mutants(
        "evaluation/gate/verdicts.py",
        "evaluation/gate/test_verdicts.py",
        {
            "gate: a forced promotion counts as an earlier one": (" and not entry.forced", ""),
            "gate: a rejected snapshot": ("if not last.passed:", "if False:"),
            "gate: judged against what the alias named first": (
                "last.against.snapshot_id != history[-1]",
                "last.against.snapshot_id != history[0]",
            ),
            "gate: judged by other rules": (
                "if rules <= {finding.rule for finding in verdict.findings}",
                "if verdict.findings",
            ),
            "gate: the first verdict": ("last = fitting[-1]", "last = fitting[0]"),
        },
    ),
    *_mutants(
        "evaluation/significance.py",
        "evaluation/test_significance.py",
        {
            "significance: p of zero": ("(at_least + 1) / (rounds + 1)", "at_least / rounds"),
            "significance: ties are not counted": ("sums >= observed - 1e-12", "sums > observed + 1e-12"),
            "significance: one side of two": (
                "sums = np.abs(flips @ differences) if two_sided",
                "sums = flips @ differences if two_sided",
            ),
        },
    ),
)
_SEARCH = (
    *_mutants(
        "search/vector/kernels.py",
        "search/vector/test_rounding.py",
        {
            "kernels: no slack for rounding of integers": (
                " + _rounding(codes, queries)) / rounded.unit",
                ") / rounded.unit",
            ),
            "kernels: ties in tables of products": ("scores[:, -1] <= slack).any()", "scores[:, -1] <= -1.0).any()"),
            "kernels: no slack in tables of products": ("scores[:, -1] <= slack).any()", "scores[:, -1] <= 0.0).any()"),
        },
    ),
    *_mutants(
        "search/vector/kernels.py",
        "search/vector/test_kernels.py",
        {"kernels: l2 by the whole square": ("scores - lengths / 2", "scores - lengths")},
    ),
    *_mutants(
        "search/vector/int8_products.py",
        "search/vector/test_int8_products.py",
        {
            "int8 products: sums up to 2**32": ("2.0**31 / (2.0**14", "2.0**32 / (2.0**14"),
            "int8 products: an error of half": ("(1 + np.sqrt(dimension) / 254)", "/ 2**10"),
        },
    ),
    *_mutants(
        "search/vector/topk.py",
        "search/vector/test_topk.py",
        {
            "top-k: the rounding guard": (
                "np.nextafter(lowest.astype(dtype), dtype.type(-np.inf))",
                "lowest.astype(dtype)",
                "Equivalent: rounding never changes an order, so a score of that dtype that reaches the limit also "
                "reaches the rounded limit.",
            ),
            "top-k: one row too many": ("places < self.count)", "places <= self.count)"),
            "top-k: exactly at the slack": (
                "score >= (self.threshold - self.below)[query]",
                "score > (self.threshold - self.below)[query]",
            ),
            "top-k: whole limits are rounded down": ("np.clip(np.ceil(lowest)", "np.clip(np.ceil(lowest) + 1"),
        },
    ),
    *_mutants(
        "search/vector/scoring.py",
        "search/vector/test_scoring.py",
        {
            "scoring: cosines of queries of any length": (" * np.sqrt((target**2).sum())", ""),
            "scoring: l2 is not negated": (
                "scores = -np.sqrt(((vectors - target)",
                "scores = np.sqrt(((vectors - target)",
            ),
            "scoring: ties by l1": ("searched[scores >= last]", "searched[scores > last]"),
            "scoring: raw codes": (
                "codes.quantizer.decode(np.ascontiguousarray(codes.array[rows]))",
                "codes.array[rows]",
            ),
        },
    ),
    *_mutants(
        "search/vector/rescoring.py",
        "search/vector/test_scoring.py",
        {
            "rescoring: no more than are wanted": ("max(1, rescore) * count if", "count if"),
            "rescoring: ties by the last row": ("np.lexsort((near, -scores))", "np.lexsort((-near, -scores))"),
        },
    ),
    *_mutants(
        "search/query_cache.py",
        "search/test_cache_keys.py",
        {
            "cache: key without the role": ('(space.space_id, role, "exact"', '(space.space_id, "exact"'),
            "cache: canonical key without the role": (
                '(space.space_id, role, "canonical"',
                '(space.space_id, "canonical"',
            ),
            "cache: key without the space": ('(space.space_id, role, "exact"', '(role, "exact"'),
            "cache: other tokens": ("and entry[0] == tokens", ""),
            "cache: an entry at its end": ("self.clock() >= entry[0]", "self.clock() > entry[0]"),
            "cache: answers of another key": ("if other_key == key and ", "if "),
            "cache: exactly near enough": (">= nearest:", "> nearest:"),
        },
    ),
    *_mutants(
        "search/index.py",
        "search/test_cache_keys.py",
        {"cache: answers of other files": ("(view.space.space_id, view.digest, ", "(view.space.space_id, ")},
    ),
    *_mutants(
        "search/local_copy.py",
        "search/test_local_copy.py",
        {
            "copy: ID without deletions": ('"deletions": deleted, ', ""),
            "copy: ID without the lexical index": (', "lexical": words}', "}"),
            "copy: ID without segments": (
                "(part.documents, part.chunks, part.segment)]",
                "(part.documents, part.chunks)]",
            ),
            "copy: a file that changed": ("return _digest(path) == file.sha256", "return True"),
            "copy: moved from another place": ('if record["copy"] != folder.name:', "if False:"),
        },
    ),
    *_mutants(
        "search/bm25.py",
        "search/test_bm25.py",
        {
            "bm25: of other files": ("if record.files != files_digest(manifest):", "if False:"),
            "bm25: the index is not hashed": (
                "if (digest := sha256(data)) != record.sha256:",
                "if (digest := sha256(data)) is None:",
            ),
            "bm25: other settings": ("record.spec == spec:", "record.spec:"),
            "bm25: without prefixes": ('yield [row["prefix"] + row["text"]', 'yield [row["text"]'),
        },
    ),
    *_mutants(
        "search/fusion.py",
        "search/test_fusion.py",
        {
            "fusion: ranks from 0": ("start=1", "start=0"),
            "fusion: k of 61": ("RRF_K = 60", "RRF_K = 61"),
            "fusion: equal scores count nothing": ("if span else 1.0", "if span else 0.0"),
        },
    ),
    *_mutants(
        "search/filters.py",
        "search/test_filters.py",
        {
            "filter: a missing field passes": (
                "filled = pc.fill_null(result, False)",
                "filled = pc.fill_null(result, True)",
            ),
            "filter: less includes equal": ("ast.Lt: pc.less,", "ast.Lt: pc.less_equal,"),
            "filter: true or missing": ("else pc.or_kleene", "else pc.or_"),
            "filter: found beside a missing element": ("mask=unknown & ~hits", "mask=unknown"),
        },
    ),
    *_mutants(
        "search/view.py",
        "search/test_view.py",
        {
            "view: ties by row": ("(-scores[place], names[place])", "(-scores[place], place)"),
            "view: ties with the last are cut": ("best = scores >= np.partition", "best = scores > np.partition"),
            "view: texts without a word of the query": ("np.flatnonzero(scores > 0)", "np.flatnonzero(scores >= 0)"),
            "view: a query of NaN": ("if not np.isfinite(vectors).all():", "if False:"),
        },
    ),
)
MUTANTS: tuple[Mutant, ...] = (*_TRANSFORM, *_HANDSHAKE, *_COLLECTION, *_PIPELINE, *_GATE, *_SEARCH)
