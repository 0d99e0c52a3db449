/* Runs an exported model through TensorFlow's C API and prints the runoff.

   runoff MODEL CELLS DAYS STATICS FORCING STATIC RUNOFF < series.f32

   MODEL is the folder of a version; FORCING, STATIC and RUNOFF are names of tensors, as
   the card of the model has them. The standard input is forcing (cells, days, 3), then
   static (cells, statics), in single precision. Runoff goes out as a line for each
   cell, in mm d-1. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

static TF_Status *status;

/* Leaves with a line where TensorFlow has something to say against it. */
static void check(const char *task) {
  if (TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", task, TF_Message(status));
  exit(1);
}

/* A tensor of single precision from the standard input. */
static TF_Tensor *read_tensor(const int64_t *sizes, int rank) {
  size_t bytes = sizeof(float);
  for (int n = 0; n < rank; n++) bytes *= (size_t)sizes[n];
  TF_Tensor *tensor = TF_AllocateTensor(TF_FLOAT, sizes, rank, bytes);
  if (fread(TF_TensorData(tensor), 1, bytes, stdin) != bytes) {
    fprintf(stderr, "The standard input is too short.\n");
    exit(1);
  }
  return tensor;
}

/* The place in the graph of a name such as "serving_default_forcing:0". */
static TF_Output place(TF_Graph *graph, const char *name) {
  char operation[256];
  const char *colon = strrchr(name, ':');
  int length = (int)(colon ? (size_t)(colon - name) : strlen(name));
  snprintf(operation, sizeof operation, "%.*s", length, name);
  TF_Output output = {TF_GraphOperationByName(graph, operation),
                      colon ? atoi(colon + 1) : 0};
  if (!output.oper) {
    fprintf(stderr, "The model has no tensor '%s'.\n", name);
    exit(1);
  }
  return output;
}

int main(int count, char **words) {
  if (count != 8) {
    fprintf(stderr,
            "usage: %s MODEL CELLS DAYS STATICS FORCING STATIC RUNOFF < series.f32\n",
            words[0]);
    return 2;
  }
  int64_t cells = atoll(words[2]), days = atoll(words[3]), statics = atoll(words[4]);
  const char *tags[] = {"serve"};

  status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(
      options, NULL, words[1], tags, 1, graph, NULL, status);
  check("The model cannot be loaded");

  TF_Output inputs[] = {place(graph, words[5]), place(graph, words[6])};
  TF_Output output = place(graph, words[7]);
  TF_Tensor *series[] = {read_tensor((int64_t[]){cells, days, 3}, 3),
                         read_tensor((int64_t[]){cells, statics}, 2)};
  TF_Tensor *runoff = NULL;
  TF_SessionRun(session, NULL, inputs, series, 2, &output, &runoff, 1, NULL, 0, NULL,
                status);
  check("The model cannot be run");

  const float *value = TF_TensorData(runoff);
  for (int64_t cell = 0; cell < cells; cell++)
    for (int64_t day = 0; day < days; day++)
      printf("%.9g%c", *value++, day + 1 < days ? ' ' : '\n');

  TF_DeleteTensor(runoff);
  for (int n = 0; n < 2; n++) TF_DeleteTensor(series[n]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return 0;
}
