"""Bring an index up to date with a folder, or search it, with another library; run by the interpreter that has it.

    PYTHON benchmarks/peers/pipelines.py NAME (update|query) FOLDER STATE MODEL TOKENS OVERLAP

Prints the number of chunks that were encoded, or the source of the best hit, as JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

QUESTION = "How is a dictionary used to compress small files?"


@dataclass(frozen=True)
class Task:
    """What a library is given."""

    folder: Path
    state: Path
    model: str
    tokens: int
    overlap: int

    def documents(self) -> list[tuple[str, str]]:
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return [(str(path.relative_to(self.folder)), path.read_text(errors="replace")) for path in paths]

    def count(self) -> Any:
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(next(Path(self.model).rglob("tokenizer.json"))))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return lambda text: len(tokenizer.encode(text, add_special_tokens=False).ids)

    def splitter(self) -> Any:
        from langchain_text_splitters import RecursiveCharacterTextSplitter

        return RecursiveCharacterTextSplitter(
            chunk_size=self.tokens, chunk_overlap=self.overlap, length_function=self.count()
        )


def langchain(task: Task, action: str) -> dict[str, Any]:
    from langchain_classic.indexes import SQLRecordManager, index
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS
    from langchain_core.documents import Document
    from langchain_huggingface import HuggingFaceEmbeddings

    embeddings = HuggingFaceEmbeddings(model_name=task.model, model_kwargs={"device": "cpu"})
    if (task.state / "index.faiss").exists():
        store = FAISS.load_local(str(task.state), embeddings, allow_dangerous_deserialization=True)
    else:
        import faiss

        store = FAISS(embeddings, faiss.IndexFlatL2(384), InMemoryDocstore(), {})
    if action == "query":
        return {"hit": store.similarity_search(QUESTION, k=5)[0].metadata["source"]}
    manager = SQLRecordManager("line", db_url=f"sqlite:///{task.state / 'records.sqlite'}")
    manager.create_schema()
    whole = [Document(text, metadata={"source": name}) for name, text in task.documents()]
    chunks = task.splitter().split_documents(whole)
    found = index(chunks, manager, store, cleanup="full", source_id_key="source", key_encoder="sha256")
    store.save_local(str(task.state))
    return {"chunks": found["num_added"], "all": len(chunks)}


def llamaindex(task: Task, action: str) -> dict[str, Any]:
    from llama_index.core import Document
    from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.core.storage.docstore import SimpleDocumentStore
    from llama_index.core.vector_stores import SimpleVectorStore
    from llama_index.embeddings.huggingface import HuggingFaceEmbedding
    from tokenizers import Tokenizer

    embedding = HuggingFaceEmbedding(model_name=task.model, device="cpu")
    if action == "query":
        # The simple store keeps vectors and IDs of nodes; texts are in a file of our own.
        kept = SimpleVectorStore.from_persist_path(str(task.state / "vectors.json"))
        texts = json.loads((task.state / "nodes.json").read_text())
        from llama_index.core.vector_stores.types import VectorStoreQuery

        vector = embedding.get_query_embedding(QUESTION)
        best = kept.query(VectorStoreQuery(query_embedding=vector, similarity_top_k=5)).ids or []
        return {"hit": texts.get(best[0], best[0])}
    tokenizer = Tokenizer.from_file(str(next(Path(task.model).rglob("tokenizer.json"))))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    splitter = SentenceSplitter(
        chunk_size=task.tokens,
        chunk_overlap=task.overlap,
        tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False).ids,
        include_metadata=False,
    )
    is_new = not (task.state / "vectors.json").exists()
    vectors = SimpleVectorStore() if is_new else SimpleVectorStore.from_persist_path(str(task.state / "vectors.json"))
    pipeline = IngestionPipeline(
        transformations=[splitter, embedding],
        docstore=SimpleDocumentStore(),
        vector_store=vectors,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
    )
    if not is_new:
        pipeline.load(str(task.state / "pipeline"))
        pipeline.vector_store = vectors
    documents = [Document(text=text, id_=name, metadata={"source": name}) for name, text in task.documents()]
    nodes = pipeline.run(documents=documents)
    pipeline.persist(str(task.state / "pipeline"))
    vectors.persist(str(task.state / "vectors.json"))
    known = {} if is_new else json.loads((task.state / "nodes.json").read_text())
    known.update({node.node_id: node.ref_doc_id for node in nodes})
    (task.state / "nodes.json").write_text(json.dumps(known))
    return {"chunks": len(nodes)}


def txtai(task: Task, action: str) -> dict[str, Any]:
    from txtai import Embeddings

    if action == "query":
        embeddings = Embeddings()
        embeddings.load(str(task.state / "index"))
        return {"hit": embeddings.search(QUESTION, 5)[0]["id"]}
    splitter = task.splitter()
    embeddings = Embeddings(path=task.model, method="sentence-transformers", content=True)
    chunks = [
        (f"{name}#{number}", text)
        for name, whole in task.documents()
        for number, text in enumerate(splitter.split_text(whole))
    ]
    embeddings.index(chunks)
    embeddings.save(str(task.state / "index"))
    return {"chunks": len(chunks)}


def cocoindex(task: Task, action: str) -> dict[str, Any]:
    import cocoindex as coco
    import numpy as np
    from cocoindex.connectors import lancedb, localfs
    from cocoindex.ops.sentence_transformers import SentenceTransformerEmbedder
    from cocoindex.ops.text import RecursiveSplitter
    from cocoindex.resources.file import PatternFilePathMatcher
    from numpy.typing import NDArray

    place = str(task.state / "lance")
    if action == "query":

        async def ask() -> str:
            connection = await lancedb.connect_async(place)
            vector = await SentenceTransformerEmbedder(task.model).embed(QUESTION)
            table = await connection.open_table("chunks")
            found = await (await table.search(vector, vector_column_name="embedding")).limit(5).to_list()
            return str(found[0]["filename"])

        return {"hit": asyncio.run(ask())}
    database = coco.ContextKey[lancedb.LanceAsyncConnection]("database")
    embedder = coco.ContextKey[SentenceTransformerEmbedder]("embedder")
    splitter, encoded = RecursiveSplitter(), []

    @dataclass
    class Row:
        id: str
        filename: str
        text: str
        embedding: Annotated[NDArray[np.float32], embedder]

    Row.__annotations__["embedding"] = Annotated[NDArray[np.float32], embedder]
    Row.__annotations__.update(id=str, filename=str, text=str)

    @coco.lifespan
    async def provide(builder: Any) -> AsyncIterator[None]:
        builder.settings.db_path = task.state / "coco.db"
        builder.provide(database, await lancedb.connect_async(place))
        builder.provide(embedder, SentenceTransformerEmbedder(task.model))
        yield

    async def one_chunk(chunk: Any, name: str, table: Any) -> None:
        encoded.append(1)
        vector = await coco.use_context(embedder).embed(chunk.text)
        number = hashlib.sha256(f"{name}:{chunk.start.char_offset}:{chunk.text}".encode()).hexdigest()
        table.declare_row(row=Row(number, name, chunk.text, vector))

    @coco.fn(memo=True)
    async def one_file(file: Any, table: Any) -> None:
        # Its splitter counts characters: about four and a half to a token of this text.
        size, overlap = int(4.5 * task.tokens), int(4.5 * task.overlap)
        chunks = splitter.split(await file.read_text(), chunk_size=size, chunk_overlap=overlap, language="markdown")
        name = str(file.file_path.path)
        await asyncio.gather(*(one_chunk(chunk, name, table) for chunk in chunks))

    @coco.fn
    async def everything(folder: Path) -> None:
        schema = await lancedb.TableSchema.from_class(Row, primary_key=["id"])
        table = await lancedb.mount_table_target(database, "chunks", schema)
        matcher = PatternFilePathMatcher(included_patterns=["**/*"])
        files = localfs.walk_dir(folder, recursive=True, path_matcher=matcher)
        await coco.mount_each(one_file, files.items(), table)

    app = coco.App(coco.AppConfig(name="line"), everything, folder=task.folder)
    app.update_blocking()
    return {"chunks": len(encoded)}


PIPELINES = {"LangChain": langchain, "LlamaIndex": llamaindex, "txtai": txtai, "CocoIndex": cocoindex}


def main() -> None:
    name, action, folder, state, model, tokens, overlap = sys.argv[1:]
    task = Task(Path(folder), Path(state), model, int(tokens), int(overlap))
    task.state.mkdir(parents=True, exist_ok=True)
    print(json.dumps(PIPELINES[name](task, action)))


if __name__ == "__main__":
    main()
