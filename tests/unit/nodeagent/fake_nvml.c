/* A libnvidia-ml.so for tests: cards that live in a folder, $FAKE_NVML.
 *
 * Each card is a folder gpu0, gpu1, …, with files of one number: limit, least, most, default (mW), watts (mW), joules (mJ),
 * celsius, reasons (bits); `pids` has a process id a line. What is set is written there, so it outlives the process, as in a card.
 *
 * Faults: `die` in $FAKE_NVML with "CALL N" kills the process (SIGKILL) at the Nth call of CALL, before it does anything; `die_after`
 * the same, when it has; `refuse` with "CALL CODE" makes it fail.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { unsigned pid; unsigned long long used; unsigned gpu, compute; } process;
static int calls[64];
static char names[64][80];

static const char *root(void) { const char *r = getenv("FAKE_NVML"); return r ? r : "/nonexistent"; }

static int number(const char *folder, const char *name, unsigned long long *value) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", root(), folder, name);
    FILE *f = fopen(path, "r");
    if (!f) return 3; /* NOT_SUPPORTED */
    int ok = fscanf(f, "%llu", value) == 1;
    fclose(f);
    return ok ? 0 : 999;
}

static int fault(const char *file, const char *call, int *value) {
    char path[512], name[80];
    snprintf(path, sizeof path, "%s/%s", root(), file);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    int ok = fscanf(f, "%79s %d", name, value) == 2 && !strcmp(name, call);
    fclose(f);
    return ok;
}

static int count(const char *call) {
    for (int i = 0; i < 64; i++) {
        if (!names[i][0]) strncpy(names[i], call, 79);
        if (!strcmp(names[i], call)) return ++calls[i];
    }
    return 0;
}

static int enter(const char *call, int *nth) {
    int n, code;
    *nth = count(call);
    if (fault("die", call, &n) && n == *nth) kill(getpid(), SIGKILL);
    if (fault("refuse", call, &code)) return code;
    return 0;
}

static int leave(const char *call, int nth, int code) {
    int n;
    if (fault("die_after", call, &n) && n == nth) kill(getpid(), SIGKILL);
    return code;
}

#define ENTER int nth, code = enter(__func__, &nth); if (code) return code
#define LEAVE(result) return leave(__func__, nth, (result))

static int get(void *handle, const char *name, unsigned *value) {
    unsigned long long found;
    int code = number(handle, name, &found);
    if (!code) *value = (unsigned)found;
    return code;
}

int nvmlInit_v2(void) { ENTER; LEAVE(0); }
int nvmlShutdown(void) { ENTER; LEAVE(0); }
const char *nvmlErrorString(int code) { return code == 4 ? "Insufficient Permissions" : code == 15 ? "GPU is lost" : "fault"; }

int nvmlDeviceGetCount_v2(unsigned *n) {
    ENTER;
    char path[512];
    for (*n = 0; *n < 16; ++*n) {
        snprintf(path, sizeof path, "%s/gpu%u", root(), *n);
        if (access(path, F_OK)) break;
    }
    LEAVE(0);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ENTER;
    static char folders[16][8];
    snprintf(folders[index], 8, "gpu%u", index);
    *handle = folders[index];
    LEAVE(0);
}

int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) { ENTER; snprintf(text, size, "GPU-%s", (char *)handle); LEAVE(0); }
int nvmlDeviceGetName(void *handle, char *text, unsigned size) { ENTER; snprintf(text, size, "Fake %s", (char *)handle); LEAVE(0); }
int nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *mw) { ENTER; LEAVE(get(handle, "limit", mw)); }
int nvmlDeviceGetPowerManagementDefaultLimit(void *handle, unsigned *mw) { ENTER; LEAVE(get(handle, "default", mw)); }
int nvmlDeviceGetPowerUsage(void *handle, unsigned *mw) { ENTER; LEAVE(get(handle, "watts", mw)); }
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *mj) { ENTER; LEAVE(number(handle, "joules", mj)); }
int nvmlDeviceGetTemperature(void *handle, unsigned sensor, unsigned *c) { (void)sensor; ENTER; LEAVE(get(handle, "celsius", c)); }

int nvmlDeviceGetCurrentClocksThrottleReasons(void *handle, unsigned long long *bits) { ENTER; LEAVE(number(handle, "reasons", bits)); }

int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, unsigned *least, unsigned *most) {
    ENTER;
    int bad = get(handle, "least", least);
    LEAVE(bad ? bad : get(handle, "most", most));
}

int nvmlDeviceSetPowerManagementLimit(void *handle, unsigned mw) {
    ENTER;
    unsigned least = 0, most = 0;
    if (get(handle, "least", &least) || get(handle, "most", &most)) LEAVE(3);
    if (mw < least || mw > most) LEAVE(2); /* INVALID_ARGUMENT */
    char path[512], new[520];
    snprintf(path, sizeof path, "%s/%s/limit", root(), (char *)handle);
    snprintf(new, sizeof new, "%s.new", path);
    FILE *f = fopen(new, "w"); /* renamed: who looks sees the former or the new one */
    if (!f) LEAVE(4);
    fprintf(f, "%u\n", mw);
    fclose(f);
    LEAVE(rename(new, path) ? 999 : 0);
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned *n, process *infos) {
    ENTER;
    char path[512];
    unsigned room = *n, pid;
    snprintf(path, sizeof path, "%s/%s/pids", root(), (char *)handle);
    *n = 0;
    FILE *f = fopen(path, "r");
    if (!f) LEAVE(0);
    while (fscanf(f, "%u", &pid) == 1) {
        if (*n < room) infos[*n].pid = pid;
        ++*n;
    }
    fclose(f);
    LEAVE(*n > room ? 7 : 0);
}
