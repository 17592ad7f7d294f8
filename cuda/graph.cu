/* A step recorded once and launched for every later step with the same numbers. */
#include <new>
#include "engine.cuh"

int tcu_capture_begin(tcu_engine *e) {
  CHECK(enter_step(e));
  if (e->capturing) return failed(TCU_ARGUMENT, "tcu_capture_begin: already capturing");
  CHECK_CUDA(cudaStreamBeginCapture(e->stream, cudaStreamCaptureModeThreadLocal));
  e->capturing = true;
  return TCU_OK;
}

int tcu_capture_end(tcu_engine *e, tcu_graph **graph) {
  CHECK(enter(e));
  if (!e->capturing) return failed(TCU_ARGUMENT, "tcu_capture_end: not capturing");
  /* the capture ends whatever comes back, and with it any error that was made inside */
  e->capturing = false;
  e->published_layer = e->normed_layer = -1;
  cudaGraph_t recorded = nullptr;
  const cudaError_t error = cudaStreamEndCapture(e->stream, &recorded);
  if (error != cudaSuccess) {
    if (recorded) cudaGraphDestroy(recorded);
    return cuda_failed(error, "cudaStreamEndCapture");
  }
  cudaGraphExec_t exec = nullptr;
  const cudaError_t instantiated = graph ? cudaGraphInstantiate(&exec, recorded, 0) : cudaSuccess;
  cudaGraphDestroy(recorded);
  if (!graph) return failed(TCU_ARGUMENT, "tcu_capture_end: nowhere to put the graph");
  *graph = nullptr;
  if (instantiated != cudaSuccess) return cuda_failed(instantiated, "cudaGraphInstantiate");
  /* the first launch would pay for the transfer to the device otherwise */
  const cudaError_t uploaded = cudaGraphUpload(exec, e->stream);
  tcu_graph *made = uploaded == cudaSuccess ? new (std::nothrow) tcu_graph{exec} : nullptr;
  if (!made) {
    cudaGraphExecDestroy(exec);
    return uploaded == cudaSuccess ? failed(TCU_MEMORY, "tcu_capture_end: no host memory") : cuda_failed(uploaded, "cudaGraphUpload");
  }
  e->graphs.push_back(made);
  *graph = made;
  return TCU_OK;
}

/* Where a graph is in the engine's list, or -1. */
static int index_of(const tcu_engine &e, const tcu_graph *graph) {
  for (size_t i = 0; i < e.graphs.size(); i++) {
    if (e.graphs[i] == graph) return (int)i;
  }
  return -1;
}

int tcu_graph_launch(tcu_engine *e, tcu_graph *graph) {
  CHECK(enter_step(e));
  if (e->capturing || index_of(*e, graph) < 0) return failed(TCU_ARGUMENT, "tcu_graph_launch: while capturing, or not a graph of this engine");
  CHECK_CUDA(cudaGraphLaunch(graph->exec, e->stream));
  return TCU_OK;
}

int tcu_graph_free(tcu_engine *e, tcu_graph *graph) {
  CHECK(enter(e));
  const int index = index_of(*e, graph);
  if (index < 0) return failed(TCU_ARGUMENT, "tcu_graph_free: not a graph of this engine");
  e->graphs.erase(e->graphs.begin() + index);
  const cudaError_t error = cudaGraphExecDestroy(graph->exec);
  delete graph;
  return error == cudaSuccess ? TCU_OK : cuda_failed(error, "cudaGraphExecDestroy");
}
