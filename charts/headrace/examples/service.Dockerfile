# docker build -t orders:1 -f charts/headrace/examples/service.Dockerfile path/to/your/service
ARG HEADRACE=headrace:dev
FROM ${HEADRACE}
USER 0
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY . .
USER 10001:10001
CMD ["run", "orders:app", "--host", "0.0.0.0"]
