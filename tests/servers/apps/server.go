// The facts by net/http; it ends well, as Go's documentation has it.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	version, _ := os.ReadFile("version.txt")
	facts := map[string]any{
		"version": string(version[:1]), "worker": os.Getenv("WORKER_ID"), "pid": os.Getpid(),
	}
	server := &http.Server{Addr: "127.0.0.1:" + os.Args[1]}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(facts)
	})
	stop, done := make(chan os.Signal, 1), make(chan bool)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		<-stop
		server.Shutdown(context.Background())
		close(done)
	}()
	server.ListenAndServe()
	<-done
}
