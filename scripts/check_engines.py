"""Lets other programs read an archive of Piperoll, and compares their answers. Called by check-engines.

The expected answers are computed from the files with pyarrow and hashlib. Every engine runs in a process of its own, so
that one that crashes does not end the others. It reads

- the files where they are, or copies of them if the archive is in a bucket,
- the same objects in a bucket. For an archive in a folder this is a bucket of SeaweedFS on loopback, which also has an
  object that is not on the list, as an interrupted step leaves one: an engine that lists the bucket counts its rows,
- copies in which a row is missing and one bit of another row is changed: every engine must notice both.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

QUESTIONS = ["rows", "nodes", "users", "failures", "day", "values", "times", "leaves"]
SECONDS = 900  # for one engine


class Failed(Exception):
    pass


# ---------------------------------------------------------------------------------------------------------------------
# Questions


class Dialect:
    """How one engine writes what differs between engines."""

    def __init__(self, quote, day, micros, leaf):
        self.quote, self.day, self.micros, self.leaf = quote, day, micros, leaf


def next_day(day):
    return str(datetime.date.fromisoformat(day) + datetime.timedelta(days=1))


# An erased row has neither body nor mac, and its leaf is in the column `leaf`. Functions that ignore NULL, such as
# DataFusion's concat(), would return the leaf of an empty row; operators and functions here return NULL for it.
DUCKDB = Dialect(
    '"',
    lambda day: f"day = '{day}'",
    lambda value: f"epoch_us({value})",
    r"coalesce(lower(hex(leaf)), sha256(('\x00'::BLOB || body || mac)::BLOB))",
)
CLICKHOUSE = Dialect(
    '"',
    lambda day: f"day = '{day}'",
    lambda value: f"toUnixTimestamp64Micro({value})",
    "lower(hex(ifNull(leaf, SHA256(concat(char(0), body, mac)))))",
)
DATAFUSION = Dialect(
    '"',
    lambda day: f"day = date '{day}'",
    lambda value: f"cast({value} as bigint)",
    "encode(coalesce(cast(leaf as bytea), sha256(x'00' || body || mac)), 'hex')",
)
SPARK = Dialect(
    "`",
    lambda day: f"day = date'{day}'",
    lambda value: f"unix_micros({value})",
    "coalesce(lower(hex(leaf)), sha2(concat(X'00', body, mac), 256))",
)
# An Iceberg table has no column `day`. It is partitioned by the day of `timestamp`, so a range of it reads only that
# day.
DUCKDB_ICEBERG = Dialect(
    '"',
    lambda day: (
        f"timestamp >= TIMESTAMPTZ '{day} 00:00:00+00' AND timestamp < TIMESTAMPTZ '{next_day(day)} 00:00:00+00'"
    ),
    DUCKDB.micros,
    DUCKDB.leaf,
)
CLICKHOUSE_ICEBERG = Dialect(
    '"',
    lambda day: (
        f"timestamp >= toDateTime64('{day} 00:00:00', 6, 'UTC')"
        f" AND timestamp < toDateTime64('{next_day(day)} 00:00:00', 6, 'UTC')"
    ),
    CLICKHOUSE.micros,
    CLICKHOUSE.leaf,
)


def ask(query, table, dialect, job):
    """Asks an engine all questions in SQL. `query` returns the rows of a statement, `table` is what to select from."""
    quoted = {name: dialect.quote + name + dialect.quote for name in job["columns"]}
    one = lambda statement: [int(value) for value in query(statement)[0]]
    user, at = quoted["user"], quoted["timestamp"]
    return {
        "rows": one(f"SELECT count(*) FROM {table}")[0],
        "nodes": [
            [node, int(rows)]
            for node, rows in query(f"SELECT node_id, count(*) FROM {table} GROUP BY node_id ORDER BY node_id")
        ],
        # Users with the same count are ordered by their names, because the answers are compared
        "users": [
            [name, int(rows)]
            for name, rows in query(
                f"SELECT {user}, count(*) AS entries FROM {table} WHERE {user} IS NOT NULL"
                f" GROUP BY {user} ORDER BY entries DESC, {user} LIMIT 5"
            )
        ],
        "failures": one(f"SELECT count(*) FROM {table} WHERE outcome = 'failure'")[0],
        "day": one(f"SELECT count(*) FROM {table} WHERE {dialect.day(job['day'])}")[0],
        "values": one(f"SELECT {', '.join(f'count({name})' for name in quoted.values())} FROM {table}"),
        "times": one(f"SELECT {dialect.micros(f'min({at})')}, {dialect.micros(f'max({at})')} FROM {table}"),
        "leaves": sorted(
            f"{node} {generation} {seq} {leaf}"
            for node, generation, seq, leaf in query(f"SELECT node_id, generation, seq, {dialect.leaf} FROM {table}")
        ),
    }


def ask_arrow(batches, job):
    """The same questions, answered from record batches in Python. The day of a row is that of its time."""
    nodes, users, failures, of_day, values, times, leaves = {}, {}, 0, 0, [0] * len(job["columns"]), [], []
    for batch in batches:
        for index, name in enumerate(job["columns"]):
            column = batch.column(name)
            values[index] += len(column) - column.null_count
        names = ["node_id", "generation", "seq", "user", "outcome", "timestamp", "mac", "leaf", "body"]
        columns = [batch.column(name) for name in names]
        columns[5] = columns[5].cast("int64")
        for node, generation, seq, user, outcome, at, mac, leaf, body in zip(
            *(column.to_pylist() for column in columns)
        ):
            nodes[node] = nodes.get(node, 0) + 1
            if user is not None:
                users[user] = users.get(user, 0) + 1
            failures += outcome == "failure"
            times.append(at)
            of_day += day_of(at) == job["day"]
            # An engine that finds no value where there is one fails the comparison, not this function
            if leaf is None and body is not None and mac is not None:
                leaf = hashlib.sha256(b"\0" + body + mac).digest()
            leaves.append(f"{node} {generation} {seq} {leaf and leaf.hex()}")
    return {
        "rows": len(leaves),
        "nodes": [list(item) for item in sorted(nodes.items())],
        "users": [list(item) for item in sorted(users.items(), key=lambda item: (-item[1], item[0]))[:5]],
        "failures": failures,
        "day": of_day,
        "values": values,
        "times": [min(times), max(times)],
        "leaves": sorted(leaves),
    }


def day_of(micros):
    return str(datetime.date(1970, 1, 1) + datetime.timedelta(days=micros // 86_400_000_000))


# ---------------------------------------------------------------------------------------------------------------------
# Engines. Each gets the list of files of a source, and yields its name, its answers, and how it was given the list.


def shortened(files):
    return f"'{files[0]}', …"


def text_of(statement):
    """Quotes a string for SQL."""
    return "'" + statement.replace("'", "''") + "'"


def duckdb_connection(job, extensions):
    import importlib.util

    import duckdb

    # Extensions from PyPI are loaded by path. Nothing else may be fetched.
    connection = duckdb.connect(
        config={
            "allow_unsigned_extensions": "true",
            "autoinstall_known_extensions": "false",
            "extension_directory": os.path.join(job["work"], "duckdb"),
        }
    )
    for name in extensions:
        folder = pathlib.Path(importlib.util.find_spec(f"duckdb_extension_{name}").origin).parent
        connection.execute(f"LOAD {text_of(str(next(folder.glob('extensions/*/*.duckdb_extension'))))}")
    connection.execute("SET TimeZone = 'UTC'")
    s3 = job["s3"]
    endpoint = urllib.parse.urlsplit(s3["endpoint"])
    secret = {
        "TYPE": "s3",
        "KEY_ID": text_of(s3["key"]),
        "SECRET": text_of(s3["secret"]),
        "REGION": text_of(s3["region"]),
    }
    if s3["token"]:
        secret["SESSION_TOKEN"] = text_of(s3["token"])
    if endpoint.netloc:
        secret |= {"ENDPOINT": text_of(endpoint.netloc), "URL_STYLE": "'path'", "USE_SSL": endpoint.scheme == "https"}
    connection.execute(f"CREATE SECRET ({', '.join(f'{name} {value}' for name, value in secret.items())})")
    return connection


def duckdb(job):
    connection = duckdb_connection(job, ["httpfs"])
    for source in job["sources"]:
        files = source["files"]
        table = f"read_parquet([{', '.join(text_of(file) for file in files)}])"
        how = f"read_parquet([{shortened(files)}])"
        yield source, "DuckDB", ask(lambda statement: connection.sql(statement).fetchall(), table, DUCKDB, job), how
        if source["not_listed"]:
            pattern = text_of(folder_of(files[0]) + "*/*.parquet")
            rows = connection.sql(f"SELECT count(*) FROM read_parquet({pattern})").fetchall()[0][0]
            yield source, "rows by pattern", rows, None


def clickhouse_session(job):
    from chdb import session

    opened = session.Session(os.path.join(job["work"], "clickhouse"))
    # A long list is a long statement: the limits are 256 KiB, and for lists without slashes 1,000 names
    opened.query("SET max_query_size = 1000000000, glob_expansion_max_elements = 10000000")

    def query(statement):
        lines = str(opened.query(statement, "JSONCompactEachRow")).splitlines()
        return [json.loads(line) for line in lines]

    return query


def clickhouse_place(job, bucket, path):
    s3 = job["s3"]
    url = (
        f"{s3['endpoint']}/{bucket}/{path}"
        if s3["endpoint"]
        else f"https://{bucket}.s3.{s3['region']}.amazonaws.com/{path}"
    )
    return ", ".join(
        text_of(value) for value in [url, s3["key"], s3["secret"], *([s3["token"]] if s3["token"] else [])]
    )


def clickhouse(job):
    query = clickhouse_session(job)
    for source in job["sources"]:
        # One pattern with alternatives; the part before the braces is the same for all files
        base = folder_of(source["files"][0])
        names = [file.removeprefix(base) for file in source["files"]]
        pattern = "{" + ",".join(names) + "}" if len(names) > 1 else names[0]
        if source["is_bucket"]:
            bucket, path = base.removeprefix("s3://").split("/", 1)
            table = f"s3({clickhouse_place(job, bucket, path + pattern)}, 'Parquet')"
            how = f"s3('URL of {base}{{{names[0]},…}}', 'KEY', 'SECRET', 'Parquet')"
        else:
            table = f"file({text_of(base + pattern)}, 'Parquet')"
            how = f"file('{base}{{{names[0]},…}}', 'Parquet')"
        yield source, "ClickHouse", ask(query, table, CLICKHOUSE, job), how


def datafusion(job):
    from datafusion import SessionContext
    from datafusion.object_store import AmazonS3

    for source in job["sources"]:
        context = SessionContext()
        if source["is_bucket"]:
            s3 = job["s3"]
            bucket = source["files"][0].removeprefix("s3://").split("/")[0]
            store = AmazonS3(
                bucket,
                region=s3["region"],
                access_key_id=s3["key"],
                secret_access_key=s3["secret"],
                session_token=s3["token"] or None,
                endpoint=s3["endpoint"] or None,
                allow_http=s3["endpoint"].startswith("http://"),
            )
            context.register_object_store("s3://", store, bucket)
        # A table has one location, so every file is a table. A constant for the day lets a filter on it skip files.
        parts = []
        for number, file in enumerate(source["files"]):
            context.register_parquet(f"file_{number}", file)
            parts.append(f"SELECT *, DATE '{day_in(file)}' AS day FROM file_{number}")
        context.sql("CREATE VIEW archived AS " + " UNION ALL ".join(parts)).collect()
        query = lambda statement: [tuple(row.values()) for row in context.sql(statement).to_pylist()]
        how = f"register_parquet('file_0', '{source['files'][0]}'); CREATE VIEW archived AS {parts[0]} UNION ALL …"
        yield source, "DataFusion", ask(query, "archived", DATAFUSION, job), how


def iceberg(job):
    import logging

    from pyarrow import parquet
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.transforms import DayTransform

    # Says for every file that columns without statistics have no statistics
    logging.getLogger("pyiceberg").setLevel(logging.ERROR)
    s3 = job["s3"]
    properties = {
        "uri": f"sqlite:///{job['work']}/catalog.db",
        "warehouse": job["warehouse"],
        "s3.access-key-id": s3["key"],
        "s3.secret-access-key": s3["secret"],
        "s3.region": s3["region"],
    }
    if s3["endpoint"]:
        properties["s3.endpoint"] = s3["endpoint"]
    if s3["token"]:
        properties["s3.session-token"] = s3["token"]
    catalog = SqlCatalog("check", **properties)
    catalog.create_namespace("piperoll")
    duckdb = duckdb_connection(job, ["httpfs", "avro", "iceberg"])
    clickhouse = clickhouse_session(job) if job["has_clickhouse"] else None
    for source in job["sources"]:
        # The table numbers its columns 1, 2, 3 …, as the files do. It must have all columns in the order of the files.
        schema = parquet.read_schema(job["example"]).remove_metadata()
        table = catalog.create_table(f"piperoll.{source['name']}", schema=schema)
        with table.update_spec() as spec:
            spec.add_field("timestamp", DayTransform(), "day")
        # Twice, as after a later step: only files that the table does not have yet are added
        for files in [source["files"][: len(source["files"]) // 2], source["files"]]:
            known = {row["file_path"] for row in table.inspect.files().select(["file_path"]).to_pylist()}
            if new := [file for file in files if file not in known]:
                table.add_files(new)
        how = f"table.add_files([{shortened(source['files'])}])"

        answers = ask_arrow(table.scan().to_arrow().to_batches(), job)
        of_day = table.scan(
            f"timestamp >= '{job['day']}T00:00:00+00:00' and timestamp < '{next_day(job['day'])}T00:00:00+00:00'"
        )
        planned = sorted(task.file.file_path for task in of_day.plan_files())
        if planned != sorted(file for file in source["files"] if day_in(file) == job["day"]):
            raise Failed(f"PyIceberg reads {planned} for the day {job['day']}, not exactly the files of that day")
        yield source, "PyIceberg", answers | {"day": of_day.to_arrow().num_rows}, how

        metadata = table.metadata_location
        rows = f"iceberg_scan({text_of(metadata)})"
        query = lambda statement: duckdb.sql(statement).fetchall()
        yield source, "DuckDB, Iceberg", ask(query, rows, DUCKDB_ICEBERG, job), f"iceberg_scan('{metadata}')"

        # ClickHouse finds the newest metadata by itself. It reads files only from the store that has the metadata.
        if clickhouse and source["is_bucket"] and metadata.startswith("s3://"):
            bucket, path = re.sub(r"metadata/[^/]*$", "", metadata).removeprefix("s3://").split("/", 1)
            rows = f"icebergS3({clickhouse_place(job, bucket, path)})"
            how = f"icebergS3('URL of s3://{bucket}/{path}', 'KEY', 'SECRET')"
            yield source, "ClickHouse, Iceberg", ask(clickhouse, rows, CLICKHOUSE_ICEBERG, job), how


def hive_columns(schema):
    """The columns of CREATE EXTERNAL TABLE for Spark, Hive and Athena, from the schema of a Parquet file."""
    columns = []
    for index in range(len(schema)):
        column = schema.column(index)
        kind = column.logical_type.type
        if column.physical_type == "INT64":
            type = "timestamp" if kind == "TIMESTAMP" else "bigint"
        elif column.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY"):
            type = "string" if kind == "STRING" else "binary"
        else:
            raise Failed(
                f"column {column.name} has the type {column.physical_type}, for which there is no rule here; add one"
            )
        columns.append(f"`{column.name}` {type}")
    return columns


def spark(job):
    from pyarrow import parquet
    from pyspark.sql import SparkSession

    work = job["work"]
    # Two workers, which are processes of their own. Everything listens on loopback only.
    session = (
        SparkSession.builder.master("local-cluster[2,1,1024]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.sql.shuffle.partitions", "4")
        .config("spark.driver.maxResultSize", "0")
        .config("spark.local.dir", f"{work}/spark")
        .config("spark.sql.warehouse.dir", f"{work}/warehouse")
        .config("spark.hadoop.javax.jdo.option.ConnectionURL", "jdbc:derby:memory:check;create=true")
        .config("spark.driver.extraJavaOptions", f"-Dderby.stream.error.file={work}/derby.log -Djava.io.tmpdir={work}")
        .enableHiveSupport()
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    query = lambda statement: [tuple(row) for row in session.sql(statement).collect()]
    try:
        # The driver is counted too
        executors = lambda: session.sparkContext._jsc.sc().getExecutorMemoryStatus().size() - 1
        end = time.monotonic() + 120
        while executors() < 2:
            if time.monotonic() > end:
                raise Failed(
                    f"Spark has {executors()} workers instead of 2 after 120 s; check that 4 GiB of memory are free"
                )
            time.sleep(0.2)
        for source in job["sources"]:
            if source["is_bucket"]:
                continue
            folder = folder_of(source["files"][0])
            session.read.option("basePath", folder).parquet(*source["files"]).createOrReplaceTempView("listed")
            how = f"spark.read.option('basePath', '{folder}').parquet({shortened(source['files'])})"
            yield source, "Spark", ask(query, "listed", SPARK, job), how

            # A table lists its folder. So it gets a folder that has only the committed files, as links.
            linked = f"{work}/tables/{source['name']}"
            for file in source["files"]:
                link = pathlib.Path(linked, *pathlib.Path(file).parts[-2:])
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.realpath(file))
            columns = ",\n  ".join(hive_columns(parquet.ParquetFile(job["example"]).schema))
            table = f"archive_{source['name']}"
            query(
                f"CREATE EXTERNAL TABLE {table} (\n  {columns}\n)\nPARTITIONED BY (day date) STORED AS PARQUET"
                f" LOCATION {text_of('file:' + linked)}"
            )
            query(f"MSCK REPAIR TABLE {table}")
            how = f"CREATE EXTERNAL TABLE … LOCATION 'file:{linked}', a folder with links to the committed files"
            yield source, "Spark, table", ask(query, table, SPARK, job), how
    finally:
        session.stop()


ENGINES = {"duckdb": duckdb, "clickhouse": clickhouse, "datafusion": datafusion, "iceberg": iceberg, "spark": spark}


# ---------------------------------------------------------------------------------------------------------------------
# The check


def day_in(file):
    return re.search(r"/day=(\d{4}-\d{2}-\d{2})/[^/]+$", file)[1]


def folder_of(file):
    """The folder that has a folder for every day."""
    return re.sub(r"day=[^/]+/[^/]+$", "", file)


def read_list(path, archive):
    """The committed files, as paths or as s3:// addresses."""
    files = [line for line in pathlib.Path(path).read_text().splitlines() if line]
    if not files:
        raise Failed("the list of files is empty; archive some rows first, or check the command that wrote the list")
    for file in files:
        if not re.fullmatch(re.escape(archive.rstrip("/")) + r"/data/day=\d{4}-\d{2}-\d{2}/[^/]+\.parquet", file):
            raise Failed(
                f"the list names {file}, which is not a file of rows below {archive}; give the archive's location as"
                " `piperoll archive ls --files` prints it"
            )
    if len(set(files)) != len(files):
        raise Failed("the list names a file twice; write it again with `piperoll archive ls --files`")
    return files


def answer_for(files, job):
    """The expected answers, and that no row is in the folder of another day."""
    from pyarrow import parquet

    def batches():
        for file in files:
            opened = parquet.ParquetFile(file)
            for batch in opened.iter_batches():
                days = {day_of(at) for at in batch.column("timestamp").cast("int64").to_pylist()}
                if days != {day_in(file)}:
                    raise Failed(f"{file} has rows of {', '.join(sorted(days))}; run `piperoll archive verify`")
                yield batch

    return ask_arrow(batches(), job)


def change(files, folder, job, expected):
    """Copies the files without one row, and with one bit of another row changed. Returns the copies and these rows."""
    import pyarrow
    from pyarrow import parquet

    # The row whose absence changes as many answers as possible, and another one of the same file
    top, best = [user for user, _ in expected["users"]], None
    for file in files:
        if day_in(file) != job["day"]:
            continue
        rows = parquet.ParquetFile(file).read(columns=["user", "outcome", "body"]).to_pylist()
        with_body = [index for index, row in enumerate(rows) if row["body"]]
        if len(with_body) >= 2:
            rank = lambda index: (rows[index]["outcome"] == "failure") + (rows[index]["user"] in top)
            removed = max(with_body, key=rank)
            if best is None or rank(removed) > best[0]:
                best = rank(removed), file, removed, next(index for index in with_body if index != removed)
    if best is None:
        raise Failed(f"no file of {job['day']} has two rows, so none can be changed; archive more rows first")
    _, chosen, removed, other = best
    changed = []
    for file in files:
        copy = pathlib.Path(folder, "data", *pathlib.Path(file).parts[-2:])
        copy.parent.mkdir(parents=True, exist_ok=True)
        changed.append(str(copy))
        if file != chosen:
            copy.symlink_to(os.path.realpath(file))
            continue
        rows = parquet.ParquetFile(file).read()
        told = [
            f"{rows['node_id'][index]} {rows['generation'][index]} {rows['seq'][index]}" for index in (removed, other)
        ]
        bodies = rows["body"].to_pylist()
        bodies[other] = bytes([bodies[other][0] ^ 1]) + bodies[other][1:]
        field = rows.schema.field("body")
        rows = rows.set_column(rows.schema.get_field_index("body"), field, pyarrow.array(bodies, field.type))
        rows = pyarrow.concat_tables([rows.slice(0, removed), rows.slice(removed + 1)])
        parquet.write_table(rows, copy, compression="zstd")
    return changed, told


class SeaweedFS:
    """An S3 server on loopback, with keys and ports of its own."""

    def __init__(self, work):
        self.folder = os.path.join(work, "seaweedfs")
        os.makedirs(self.folder)
        ports = [socket.socket() for _ in range(8)]
        for port in ports:
            port.bind(("127.0.0.1", 0))
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = (
            port.getsockname()[1] for port in ports
        )
        self.grpc = [master_grpc, volume_grpc, filer_grpc, s3_grpc]
        for port in ports:
            port.close()
        self.s3 = {
            "endpoint": f"http://127.0.0.1:{s3}",
            "key": secrets.token_hex(8),
            "secret": secrets.token_hex(16),
            "token": "",
            "region": "us-east-1",
        }
        identity = {
            "name": "check",
            "credentials": [{"accessKey": self.s3["key"], "secretKey": self.s3["secret"]}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        pathlib.Path(self.folder, "s3.json").write_text(json.dumps({"identities": [identity]}))
        flags = {
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "dir": self.folder,
            "master.port": master,
            "master.port.grpc": master_grpc,
            "volume.port": volume,
            "volume.port.grpc": volume_grpc,
            "filer.port": filer,
            "filer.port.grpc": filer_grpc,
            "filer.localSocket": f"{self.folder}/filer.sock",
            "s3.port": s3,
            "s3.port.grpc": s3_grpc,
            "s3.localSocket": f"{self.folder}/s3.sock",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": f"{self.folder}/s3.json",
            # It reports statistics to its makers unless told not to
            "master.telemetry": "false",
            # Every bucket takes seven volumes, and the default is eight in all: the second bucket would be read-only
            "volume.max": 100,
            "master.volumeSizeLimitMB": 64,
        }
        weed = os.path.join(os.path.dirname(sys.executable), "weed")
        self.log = os.path.join(self.folder, "log")
        self.process = subprocess.Popen(
            [weed, "-logtostderr=true", "server", "-s3", *(f"-{name}={value}" for name, value in flags.items())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=open(self.log, "w"),
            start_new_session=True,
        )

    def create_buckets(self, names):
        filesystem = file_system(self.s3)
        end = time.monotonic() + 60
        for name in names:
            while True:
                try:
                    filesystem.create_dir(name)
                    break
                except OSError as error:
                    if self.process.poll() is not None or time.monotonic() > end:
                        tail = "".join(open(self.log).readlines()[-5:])
                        raise Failed(
                            f"SeaweedFS did not create the bucket {name} within 60 s: {error}\nIts messages:\n{tail}"
                        )
                    time.sleep(0.3)
        return filesystem

    def stop(self):
        # What it stores is not needed any more, and it takes ten seconds to end by itself
        self.process.kill()
        self.process.wait()
        for port in self.grpc:
            for path in pathlib.Path("/tmp").glob(f"seaweedfs-*-grpc-{port}.sock"):
                path.unlink()


def file_system(s3):
    from pyarrow import fs

    endpoint = urllib.parse.urlsplit(s3["endpoint"])
    return fs.S3FileSystem(
        access_key=s3["key"],
        secret_key=s3["secret"],
        session_token=s3["token"] or None,
        region=s3["region"],
        endpoint_override=endpoint.netloc or None,
        scheme=endpoint.scheme or "https",
        allow_bucket_creation=True,
    )


def from_environment():
    value = lambda *names: next((os.environ[name] for name in names if os.environ.get(name)), "")
    s3 = {
        "endpoint": value("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT").rstrip("/"),
        "key": value("AWS_ACCESS_KEY_ID"),
        "secret": value("AWS_SECRET_ACCESS_KEY"),
        "token": value("AWS_SESSION_TOKEN"),
        "region": value("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
    }
    if not s3["key"] or not s3["secret"]:
        raise Failed("the archive is in a bucket, but AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY is not set; set both")
    return s3


def run(engine, job):
    """Runs one engine, and returns what it yielded, the time, and the error if it failed."""
    work = os.path.join(job["work"], engine)
    os.makedirs(work)
    log = os.path.join(work, "log")
    environment = dict(
        os.environ, SPARK_LOCAL_IP="127.0.0.1", SPARK_LOCAL_HOSTNAME="localhost", PYSPARK_PYTHON=sys.executable
    )
    for name in ["SPARK_HOME", "HADOOP_CONF_DIR", "PYTHONPATH", "AWS_PROFILE"]:
        environment.pop(name, None)
    if job["s3"]["endpoint"].startswith("http://127.0.0.1:"):
        for name in ["http_proxy", "https_proxy", "all_proxy"]:
            environment.pop(name, None)
            environment.pop(name.upper(), None)
    begin = time.monotonic()
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "engine", engine, work],
            cwd=work,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            # Not in a file, because it has the keys of the bucket
            process.communicate(json.dumps(job | {"work": work}).encode(), SECONDS)
            error = f"ended with code {process.returncode}" if process.returncode else None
        except subprocess.TimeoutExpired:
            error = f"did not end within {SECONDS} s"
        finally:
            # Spark's workers are in the same group
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    answers = (
        [json.loads(line) for line in open(os.path.join(work, "answers"))] if os.path.exists(f"{work}/answers") else []
    )
    if error:
        error += "; its last messages:\n" + "".join(open(log, errors="replace").readlines()[-15:])
    return answers, time.monotonic() - begin, error


def engine(name, work):
    job = json.load(sys.stdin)
    with open(os.path.join(work, "answers"), "w") as output:
        for source, reader, answers, how in ENGINES[name](job):
            print(json.dumps([source["name"], reader, answers, how]), file=output, flush=True)


def differences(expected, found, columns):
    """The questions that are answered differently, and what is different."""
    different = {}
    for question in QUESTIONS:
        if found[question] == expected[question]:
            continue
        if question == "leaves":
            missing, other = (
                set(expected["leaves"]) - set(found["leaves"]),
                set(found["leaves"]) - set(expected["leaves"]),
            )
            rows = sorted({line.rsplit(" ", 1)[0] for line in missing | other})
            twice = len(found["leaves"]) - len(set(found["leaves"]))
            named = f" ({', '.join(rows[:3])}{' …' if len(rows) > 3 else ''})" if rows else ""
            different[question] = f"{len(rows)} rows differ{named}, {twice} are there twice"
        elif question == "values":
            wrong = [
                f"{name} {have} instead of {want}"
                for name, want, have in zip(columns, expected[question], found[question])
                if want != have
            ]
            different[question] = f"values that are not NULL: {', '.join(wrong)}"
        else:
            different[question] = f"expected {expected[question]}, found {found[question]}"
    return different


def table(rows):
    if not rows:
        return
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def check(archive, work, engines):
    from pyarrow import parquet

    engines = engines.split(",")
    archive = archive.removeprefix("file://").rstrip("/")
    in_bucket = archive.startswith("s3://")
    if not in_bucket:
        archive = os.path.abspath(archive)
    files = read_list(os.path.join(work, "files"), archive)

    server = None
    try:
        if in_bucket:
            s3, warehouse, not_listed = from_environment(), f"file://{work}/iceberg-tables", False
            local, remote = [], files
            bucket = file_system(s3)
            for file in files:
                copy = pathlib.Path(work, "copies", "data", *file.split("/")[-2:])
                copy.parent.mkdir(parents=True, exist_ok=True)
                with bucket.open_input_stream(file.removeprefix("s3://")) as source, open(copy, "wb") as target:
                    shutil.copyfileobj(source, target)
                local.append(str(copy))
            os.makedirs(os.path.join(work, "iceberg-tables"))
        else:
            local, not_listed = files, True
            server = SeaweedFS(work)
            s3, warehouse = server.s3, "s3://tables/iceberg"
            bucket = server.create_buckets(["archive", "tables"])
            remote = ["s3://archive/prod/" + file.removeprefix(archive).lstrip("/") for file in files]
            extra = re.sub(r"[^/]*$", "not-in-any-step.parquet", remote[0])
            for file, address in [*zip(local, remote), (local[0], extra)]:
                with open(file, "rb") as source, bucket.open_output_stream(address.removeprefix("s3://")) as target:
                    shutil.copyfileobj(source, target)

        rows_of_day = {}
        for file in local:
            rows_of_day[day_in(file)] = rows_of_day.get(day_in(file), 0) + parquet.read_metadata(file).num_rows
        job = {
            "work": work,
            "s3": s3,
            "warehouse": warehouse,
            "has_clickhouse": "clickhouse" in engines,
            "day": max(rows_of_day, key=lambda day: (rows_of_day[day], day)),
            "example": local[0],
            "columns": parquet.read_schema(local[0]).names,
        }
        expected = answer_for(local, job)
        changed, told = change(local, os.path.join(work, "changed"), job, expected)
        without = answer_for(changed, job)
        must_notice = set(differences(expected, without, job["columns"]))
        if not {"rows", "nodes", "day", "values", "leaves"} <= must_notice:
            raise Failed(
                f"the changed copies differ only in {', '.join(sorted(must_notice))}; this is an error of this program"
            )
        job["sources"] = [
            {"name": "folder", "files": local, "is_bucket": False, "not_listed": False},
            {"name": "bucket", "files": remote, "is_bucket": True, "not_listed": not_listed},
            {"name": "changed", "files": changed, "is_bucket": False, "not_listed": False},
        ]
        print(
            f"{len(files)} files, {expected['rows']:,} rows of {len(expected['nodes'])} nodes and {len(rows_of_day)}"
            f" days; the day asked for is {job['day']}"
        )
        print(f"changed copies: row {told[0]} is missing, and one bit of row {told[1]} is changed\n")

        rows, problems, hows, times = [["ENGINE", "SOURCE", *(name.upper() for name in QUESTIONS)]], [], [], []
        for name in engines:
            answers, seconds, error = run(name, job)
            times.append(f"{name} {seconds:.0f} s")
            if error:
                problems.append(f"{name}: {error}")
            elif not answers:
                problems.append(f"{name}: gave no answer")
            for source, reader, found, how in answers:
                if reader == "rows by pattern":
                    extra_rows = found - expected["rows"]
                    if extra_rows != parquet.read_metadata(local[0]).num_rows:
                        problems.append(
                            f"{name}: the object that is not on the list was not found by a pattern; the check is void"
                        )
                    continue
                hows.append([reader, source, how])
                different = differences(expected, found, job["columns"])
                if source != "changed":
                    rows.append([reader, source, *("DIFFERS" if name in different else "ok" for name in QUESTIONS)])
                    problems += [f"{reader}, {source}, {question}: {what}" for question, what in different.items()]
                    continue
                # The copies must be read as they are, and every answer that differs must be noticed
                wrong = differences(without, found, job["columns"])
                missed = [question for question in QUESTIONS if question in must_notice and question not in different]
                cells = dict.fromkeys(QUESTIONS, "ok") | dict.fromkeys(must_notice, "noticed")
                cells |= dict.fromkeys(wrong, "DIFFERS") | dict.fromkeys(missed, "MISSED")
                rows.append([reader, source, *cells.values()])
                problems += [
                    f"{reader}, {source}, {question}: {what}"
                    for question, what in wrong.items()
                    if question not in missed
                ]
                problems += [f"{reader}, {source}, {question}: the change was not noticed" for question in missed]
        table(rows)
        print("\nHow each engine was given the files:")
        table([row for row in hows if row[1] != "changed"])
        print(f"\n{', '.join(times)}")
    finally:
        if server:
            server.stop()
    for problem in problems:
        print(f"check-engines: {problem}", file=sys.stderr)
    if problems:
        print(f"{len(problems)} problems", file=sys.stderr)
        return 1
    print("all answers agree")
    return 0


if __name__ == "__main__":
    try:
        if sys.argv[1] == "engine":
            sys.exit(engine(sys.argv[2], sys.argv[3]))
        else:
            signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that the servers are ended
            sys.exit(check(*sys.argv[2:]))
    except Failed as error:
        print(f"check-engines: {error}", file=sys.stderr)
    except OSError as error:
        print(f"check-engines: {error}; check that the archive can be read, then try again", file=sys.stderr)
    sys.exit(2)
