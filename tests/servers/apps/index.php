<?php
$version = "1";
$body = json_encode(["version" => $version, "worker" => getenv("WORKER_ID"), "pid" => getmypid()]);
header("Content-Length: " . strlen($body));
echo $body;
